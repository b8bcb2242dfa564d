"""Going back and forth among the collections that are kept."""

from catalogue import make_points

import search


def test_rollback_goes_back_and_forth_and_to_a_name_and_says_what_is_kept(covers, tmp_path):
    home = tmp_path / "covers"
    nothing = covers("rollback", home=home)
    assert (nothing.returncode, nothing.stdout) == (1, "")
    assert nothing.stderr.startswith("covers: There is no other collection to go back to: ")
    assert nothing.stderr.count("\n") == 1

    with search.connect(home) as engine:
        first, second = (engine.publish(make_points(8, seed=i), f"b{i}").name for i in (1, 2))
    for arguments, current, previous in [
        ([], first, second),
        ([], second, first),
        ([first], first, second),
        ([first], first, second),
        ([], second, first),
    ]:
        done = covers("rollback", *arguments, home=home)
        assert (done.returncode, done.stderr) == (0, "")
        assert done.stdout == f"collection: {current}\nprevious: {previous}\n"
    wrong = covers("rollback", "b1", home=home)
    assert wrong.returncode == 1
    assert wrong.stderr.startswith("covers: There is no collection b1: ")
    assert wrong.stderr.endswith(f"keeps {second}, {first}.\n")
