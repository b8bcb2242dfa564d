"""The gRPC half of `ContractStub`: the three calls that the server engine makes, over a socket.

The messages are Qdrant's own, from the client's package. The client's conversions read them, and
the stub's local mode answers them.
"""

from concurrent.futures import ThreadPoolExecutor

import grpc
from contract_stub import ContractStub
from qdrant_client import grpc as messages
from qdrant_client.conversions.conversion import GrpcToRest, RestToGrpc


class GrpcStub(messages.CollectionsServicer, messages.PointsServicer):
    """Serves the collections of a `ContractStub`; `calls` names what was called."""

    def __init__(self, stub: ContractStub, key: str | None = None, certificate=None) -> None:
        self.stub, self.key = stub, key
        self.calls: list[str] = []
        self.fail_next = 0  # the number of uploads and queries to answer by `failure`
        self.failure = grpc.StatusCode.UNAVAILABLE, "not now"
        self.server = grpc.server(ThreadPoolExecutor(4))
        messages.add_CollectionsServicer_to_server(self, self.server)
        messages.add_PointsServicer_to_server(self, self.server)
        if certificate is None:
            self.port = self.server.add_insecure_port("127.0.0.1:0")
        else:
            credentials = grpc.ssl_server_credentials([certificate])
            self.port = self.server.add_secure_port("127.0.0.1:0", credentials)
        self.server.start()

    def close(self) -> None:
        self.server.stop(None).wait()

    def _called(self, name: str, context: grpc.ServicerContext) -> None:
        self.calls.append(name)
        if self.key is not None and dict(context.invocation_metadata()).get("api-key") != self.key:
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "Invalid API key or JWT")
        if name != "CollectionExists" and self.fail_next:
            self.fail_next -= 1
            context.abort(*self.failure)

    def CollectionExists(self, request, context):  # noqa: N802
        self._called("CollectionExists", context)
        exists = self.stub.local.collection_exists(request.collection_name)
        return messages.CollectionExistsResponse(
            result=messages.CollectionExists(exists=exists), time=0.0
        )

    def Upsert(self, request, context):  # noqa: N802
        self._called("Upsert", context)
        assert request.wait
        points = [GrpcToRest.convert_point_struct(point) for point in request.points]
        try:
            with self.stub.lock:
                self.stub.local.upsert(request.collection_name, points)
        except ValueError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return messages.PointsOperationResponse(
            result=messages.UpdateResult(status=messages.UpdateStatus.Completed), time=0.0
        )

    def QueryBatch(self, request, context):  # noqa: N802
        self._called("QueryBatch", context)
        asked = [GrpcToRest.convert_query_points(one) for one in request.query_points]
        try:
            with self.stub.lock:
                answers = self.stub.local.query_batch_points(request.collection_name, asked)
        except ValueError as error:
            context.abort(grpc.StatusCode.NOT_FOUND, str(error))
        return messages.QueryBatchResponse(
            result=[
                messages.BatchResult(
                    result=[RestToGrpc.convert_scored_point(point) for point in answer.points]
                )
                for answer in answers
            ],
            time=0.0,
        )
