"""What a newcomer types first."""


def test_before_anything_is_published_a_question_gets_one_sentence(covers):
    asked = covers("similar", "P_1")
    assert (asked.returncode, asked.stdout) == (1, "")
    assert asked.stderr.startswith("covers: ")
    assert asked.stderr.count("\n") == 1
