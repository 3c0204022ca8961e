"""Which answers are commands that delete or overwrite files."""

import pytest

from ramole_core.selection.part_stream import WARNING, warn_of


@pytest.mark.parametrize(
    "text",
    [
        "rm -rf build",
        "find . -size +100M -exec rm {} \\;",
        "find . -name '*.tmp' -delete",
        "find . -name '*.o' -print0 | xargs -0 rm -f",
        "sudo mv a b",
        "$ sed -i 's/a/b/' notes.txt",
        "ls -l > list.txt",
        "cat a.txt | tee b.txt",
        "Like this:\ndd if=/dev/zero of=disk.img",
        "echo hello; rm x",
    ],
)
def test_a_command_that_destroys_has_a_word_beside_it(text):
    assert warn_of(text) == (WARNING,)


@pytest.mark.parametrize(
    "text",
    [
        "find . -size +100M",
        "ls -la 2>/dev/null",
        "grep -rn 'rm' . | wc -l",
        "cat log.txt >> all.txt",
        "SELECT name FROM users WHERE age > 30",
        "Cut the rope, then move on > quickly.",
        "rm is the command that removes files.",
        "> a quotation",
        "",
    ],
)
def test_others_have_none(text):
    assert warn_of(text) == ()
