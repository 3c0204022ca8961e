"""What a stranger may do to the zip of an adapter."""

import io
import zipfile

from tests.adapter_files import CONFIG, WEIGHTS
from tests.campaigns.upload import Upload, flipped, zip_of


def leave_sound(u: Upload) -> None:
    u.refused = False


def flip_zip(u: Upload) -> None:
    u.zipped = flipped(u.zipped, u.dice)


def flip_directory(u: Upload) -> None:
    u.zipped = flipped(u.zipped, u.dice, begin=u.zipped.index(b"PK\x01\x02"))


def cut_zip(u: Upload) -> None:
    u.zipped, u.refused = u.zipped[: u.dice.randrange(len(u.zipped))], True


def surround_zip(u: Upload) -> None:
    u.zipped = u.dice.choice((u.dice.randbytes(99) + u.zipped, u.zipped + u.dice.randbytes(99)))


def add_member(u: Upload) -> None:
    """One that no archive of an adapter has."""
    name = u.dice.choice(
        ("../evil.txt", "/etc/evil", "C:\\evil", "a\\..\\..\\evil", "inner.zip", "m.tar.gz")
        + ("adapter_model.bin", "weights.pkl", "x.pt", "a/../../b", "/", "..", "one:two")
    )
    u.zipped, u.refused = zip_of({**u.files, name: b"evil"}), True


def add_link(u: Upload) -> None:
    held = io.BytesIO(u.zipped)
    with zipfile.ZipFile(held, "a") as archive:
        link = zipfile.ZipInfo("link.txt")
        link.external_attr = u.dice.choice((0o120777, 0o010644, 0o020644)) << 16
        archive.writestr(link, "/etc/passwd")
    u.zipped, u.refused = held.getvalue(), True


def double_member(u: Upload) -> None:
    held = io.BytesIO(u.zipped)
    with zipfile.ZipFile(held, "a") as archive:
        name = u.dice.choice((WEIGHTS, CONFIG))
        info = zipfile.ZipInfo(name)
        archive.NameToInfo.pop(name)
        archive.writestr(info, u.files[name])
    u.zipped, u.refused = held.getvalue(), True


def encrypt_member(u: Upload) -> None:
    data = bytearray(u.zipped)
    data[data.index(b"PK\x01\x02") + 8] |= 1
    u.zipped, u.refused = bytes(data), True


def blow_up(u: Upload) -> None:
    name = u.dice.choice((WEIGHTS, CONFIG, "README.md", "examples.jsonl"))
    u.zipped, u.refused = zip_of({**u.files, name: bytes(30 * 2**20)}), True


def add_many(u: Upload) -> None:
    many = {f"f{n}.txt": b"" for n in range(u.dice.choice((65, 3000)))}
    u.zipped, u.refused = zip_of(many | u.files), True


def pack_two_folders(u: Upload) -> None:
    two = {f"{top}/{name}": data for top in "ab" for name, data in u.files.items()}
    u.zipped, u.refused = zip_of(two), True


def pack_one_folder(u: Upload) -> None:
    how = u.dice.choice((zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED))
    u.zipped = zip_of({f"top/{name}": data for name, data in u.files.items()}, how=how)


def pack_rarely(u: Upload) -> None:
    how = u.dice.choice((zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA))
    u.zipped, u.refused = zip_of(u.files, how=how), True


def leave_out(u: Upload) -> None:
    gone = u.dice.choice((WEIGHTS, CONFIG))
    u.zipped, u.refused = zip_of({n: d for n, d in u.files.items() if n != gone}), True


def be_no_zip(u: Upload) -> None:
    u.zipped, u.refused = u.dice.choice((b"", b"PK", u.dice.randbytes(3000), u.weights)), True


def name_oddly(u: Upload) -> None:
    u.name = u.dice.choice(("a" * 150 + ".zip", "..zip", "<b>.zip", "\u202e.zip", "%2e%2e.zip"))
