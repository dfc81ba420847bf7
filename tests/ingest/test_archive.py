"""Archives are made here with the standard library, hostile ones by hand, and each file taken out is compared."""

import bz2
import gzip
import io
import lzma
import stat
import struct
import tarfile
import zipfile
from pathlib import Path, PurePosixPath, PureWindowsPath

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ingest.archive import clean_name
from ingest.draft import Draft
from ingest.parse import parse
from rag.errors import DamagedDocument, DocumentTooLarge, EmptyDocument, EncryptedDocument
from rag.records import ParsedDocument
from rag.settings import IngestSettings

LIMITS = IngestSettings()


@pytest.fixture
def unpack(tmp_path):
    """Parse an archive and return the document and the bytes of each file that was taken out of it."""

    def _unpack(
        data: bytes, name: str = "a.zip", *, depth: int = 0, **limits: int
    ) -> tuple[ParsedDocument, dict[str, bytes]]:
        path, spool = tmp_path / "0123abcd", tmp_path / "spool"
        path.write_bytes(data)
        spool.mkdir(exist_ok=True)
        allowed = LIMITS.model_copy(update=limits)
        document = parse(path, name, allowed, Draft(allowed, depth=depth, spool=spool))
        files = {
            member.name: (spool / str(number)).read_bytes()
            for number, member in enumerate(document.members)
            if member.error is None
        }
        return document, files

    return _unpack


def _refused(document: ParsedDocument) -> dict[str, str]:
    return {member.name: member.error for member in document.members if member.error is not None}


def _zip(*entries: tuple[str | zipfile.ZipInfo, bytes], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as archive:
        for name, data in entries:
            archive.writestr(name, data)
    return file.getvalue()


def _tar(*entries: tuple[str, bytes | tarfile.TarInfo], mode: str = "w", form: int = tarfile.PAX_FORMAT) -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode=mode, format=form) as archive:
        for name, content in entries:
            if isinstance(content, tarfile.TarInfo):
                content.name = name
                archive.addfile(content)
            else:
                entry = tarfile.TarInfo(name)
                entry.size = len(content)
                archive.addfile(entry, io.BytesIO(content))
    return file.getvalue()


def _special(kind: bytes, target: str = "") -> tarfile.TarInfo:
    entry = tarfile.TarInfo()
    entry.type, entry.linkname = kind, target
    return entry


def _unix(name: str, mode: int) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name)
    entry.create_system, entry.external_attr = 3, mode << 16
    return entry


# ------------------------------------------------------------------------------------------------- what is taken out


def test_each_file_of_a_zip_is_a_member_with_its_path_and_bytes(unpack):
    """Folders, hidden files and what operating systems drop are left out, as in a folder on disk."""
    data = _zip(
        ("docs/", b""),
        ("docs/a.txt", b"one"),
        ("docs/deep/b c.md", b"# two"),
        (".git/config", b"hidden"),
        ("docs/.DS_Store", b"hidden"),
        ("__MACOSX/docs/._a.txt", b"hidden"),
        ("docs/Thumbs.db", b"hidden"),
        ("docs/~$plan.docx", b"hidden"),
    )
    document, files = unpack(data)
    assert files == {"docs/a.txt": b"one", "docs/deep/b c.md": b"# two"}
    assert (document.media_type, document.elements, len(document.members)) == ("application/zip", (), 2)
    assert [member.size for member in document.members] == [3, 5]


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:bz2", "w:xz"])
@pytest.mark.parametrize("form", [tarfile.PAX_FORMAT, tarfile.GNU_FORMAT])
def test_each_file_of_a_tar_is_a_member_however_it_is_compressed_or_named(unpack, mode, form):
    long = "x" * 150 + ".txt"
    entries = [("docs", _special(tarfile.DIRTYPE)), ("docs/ü.txt", b"one"), (f"docs/{long}", b"two" * 5000)]
    document, files = unpack(_tar(*entries, mode=mode, form=form), "no-extension")
    assert files == {"docs/ü.txt": b"one", f"docs/{long}": b"two" * 5000}
    assert document.media_type == "application/x-tar"


@pytest.mark.parametrize("pack", [gzip.compress, bz2.compress, lzma.compress], ids=["gz", "bz2", "xz"])
def test_a_compressed_file_holds_one_file_with_its_name_less_the_ending(unpack, pack):
    ending = {gzip.compress: "gz", bz2.compress: "bz2", lzma.compress: "xz"}[pack]
    assert unpack(pack(b"some words"), f"folder/notes.txt.{ending}")[1] == {"notes.txt": b"some words"}
    assert unpack(pack(b"some words"), "notes")[1] == {"notes": b"some words"}
    assert unpack(pack(b"some words"), f".{ending}")[1] == {"content": b"some words"}


def test_an_archive_of_pdfs_is_no_pdf(unpack):
    """The first file of an archive that is not compressed begins near its start."""
    pdf = b"%PDF-1.4\n1 0 obj\n<<>>\nendobj\n"
    assert unpack(_zip(("a.pdf", pdf), compression=zipfile.ZIP_STORED))[1] == {"a.pdf": pdf}
    assert unpack(_tar(("a.pdf", pdf)), "a.tar")[1] == {"a.pdf": pdf}


def test_names_that_do_not_say_their_encoding_are_read_as_they_were_meant(unpack):
    """UTF-8 where it is valid, else the letters of old DOS."""
    entries = _zip(("AAAA.txt", b"utf-8"), ("BBB.txt", b"dos"))
    data = entries.replace(b"AAAA", "üß".encode()).replace(b"BBB", "Grö"[:3].encode("cp437"))
    assert unpack(data)[1] == {"üß.txt": b"utf-8", "Grö.txt": b"dos"}


def test_an_archive_in_an_archive_is_a_member_of_its_own(unpack):
    inner = _zip(("b.txt", b"deep"))
    document, files = unpack(_zip(("inner.zip", inner)), depth=2)
    assert files == {"inner.zip": inner}
    assert document.metadata == {}


# ------------------------------------------------------------------------------------------------- what is refused


def test_names_that_lead_out_of_the_archive_are_refused_and_others_made_relative(unpack):
    data = _zip(
        ("../../etc/passwd", b"1"),
        ("a/../../b", b"2"),
        ("..\\..\\c", b"3"),
        ("/etc/hosts", b"4"),
        ("C:\\docs\\d.txt", b"5"),
        ("\\\\server\\share\\e.txt", b"6"),
        ("./f.txt", b"7"),
        ("g\x1b[31m\u202e.txt", b"8"),
        ("h" * 3000, b"9"),
    )
    document, files = unpack(data)
    assert files == {
        "etc/hosts": b"4",
        "docs/d.txt": b"5",
        "server/share/e.txt": b"6",
        "f.txt": b"7",
        "g_[31m_.txt": b"8",
    }
    refused = _refused(document)
    assert list(refused) == ["__/__/etc/passwd", "a/__/__/b", "__/__/c", "h" * 200]
    assert [reason.split(":")[0] for reason in refused.values()] == [
        *["The name leads out of the archive (..)"] * 3,
        "The name is too long (3,000 characters)",
    ]


def test_links_devices_and_pipes_are_refused(unpack):
    tar = _tar(
        ("a.txt", b"a"),
        ("symlink", _special(tarfile.SYMTYPE, "/etc/passwd")),
        ("hard link", _special(tarfile.LNKTYPE, "a.txt")),
        ("device", _special(tarfile.CHRTYPE)),
        ("disk", _special(tarfile.BLKTYPE)),
        ("pipe", _special(tarfile.FIFOTYPE)),
    )
    document, files = unpack(tar, "a.tar")
    assert files == {"a.txt": b"a"}
    assert {name: reason.split(",")[0] for name, reason in _refused(document).items()} == {
        "symlink": "It is a link",
        "hard link": "It is a link",
        "device": "It is a device or pipe",
        "disk": "It is a device or pipe",
        "pipe": "It is a device or pipe",
    }
    data = _zip(
        (_unix("link", stat.S_IFLNK | 0o777), b"/etc/passwd"),
        (_unix("device", stat.S_IFCHR | 0o666), b""),
        (_unix("a.txt", stat.S_IFREG | 0o644), b"a"),
    )
    document, files = unpack(data)
    assert (files, list(_refused(document))) == ({"a.txt": b"a"}, ["link", "device"])


def test_of_two_files_with_one_name_the_second_is_refused(unpack):
    with pytest.warns(UserWarning, match="Duplicate"):
        data = _zip(("a.txt", b"first"), ("a.txt", b"second"))
    document, files = unpack(data)
    assert files == {"a.txt": b"first"}
    assert _refused(document) == {"a.txt (2)": "Another file of the archive has the same name: rename one."}


def _flagged(data: bytes, name: bytes, *, flag: int = 0, method: int | None = None) -> bytes:
    """Change flags and compression method of an entry of a ZIP, in its header and in the directory."""
    changed = bytearray(data)
    for magic, at in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = data.find(magic)
        while place >= 0:
            length = 30 if magic == b"PK\x03\x04" else 46
            if data[place + length :].startswith(name):
                (old,) = struct.unpack_from("<H", data, place + at)
                struct.pack_into("<H", changed, place + at, old | flag)
                if method is not None:
                    struct.pack_into("<H", changed, place + at + 2, method)
            place = data.find(magic, place + 1)
    return bytes(changed)


def test_files_with_a_password_or_an_unknown_compression_are_refused_one_by_one(unpack):
    data = _zip(("a.txt", b"open"), ("b.txt", b"secret"), ("c.txt", b"odd"))
    document, files = unpack(_flagged(_flagged(data, b"b.txt", flag=1), b"c.txt", method=9))
    assert files == {"a.txt": b"open"}
    assert _refused(document) == {
        "b.txt": "It is protected by a password: pack it without one.",
        "c.txt": "It is compressed in a way that is not read: pack it as an ordinary ZIP.",
    }


def test_an_archive_with_a_password_on_all_says_so(unpack):
    with pytest.raises(EncryptedDocument, match="pack its files without one"):
        unpack(_flagged(_zip(("a.txt", b"secret")), b"a.txt", flag=1))


@pytest.mark.parametrize(
    ("data", "name"),
    [(_zip(), "a.zip"), (_zip(("a/", b""), (".hidden", b"x")), "a.zip"), (_tar((".x", b"x")), "a.tar")],
    ids=["nothing", "folders and hidden files", "a hidden file in a tar"],
)
def test_an_archive_without_files_is_empty(unpack, data, name):
    with pytest.raises(EmptyDocument, match="no files"):
        unpack(data, name)


# --------------------------------------------------------------------------------------------------- what is damaged


def test_of_a_damaged_archive_nothing_is_taken(unpack):
    data = _zip(("a.txt", b"whole"), ("b.txt", b"damaged"), compression=zipfile.ZIP_STORED)
    with pytest.raises(DamagedDocument, match="pack it anew"):
        unpack(data.replace(b"damaged", b"dXmaged"))
    with pytest.raises(DamagedDocument, match="save it anew"):
        unpack(data[: len(data) // 2])
    tar = _tar(("a.txt", b"whole"), ("b.txt", b"x" * 5000))
    with pytest.raises(DamagedDocument, match="pack it anew"):
        unpack(tar[:3000], "a.tar")
    for packed in (gzip.compress(tar), bz2.compress(tar), lzma.compress(tar)):
        with pytest.raises(DamagedDocument, match="anew"):
            unpack(packed[: len(packed) // 2], "a.tar.gz")
    with pytest.raises(DamagedDocument, match="anew"):
        unpack(gzip.compress(b"some words " * 1000)[:-6], "a.txt.gz")


def test_files_that_share_their_bytes_are_refused(unpack):
    """With overlapping entries forty kilobytes unpack to gigabytes."""
    data = bytearray(_zip(("a.txt", b"0" * 5000), ("b.txt", b"0" * 5000)))
    second = data.rfind(b"PK\x01\x02")
    struct.pack_into("<I", data, second + 42, 0)  # the second name points at the first file
    with pytest.raises(DamagedDocument, match="anew"):
        unpack(bytes(data))


# ------------------------------------------------------------------------------------------------------------ limits


class _Zeros(io.RawIOBase):
    def __init__(self, size: int) -> None:
        self.left = size

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int:
        size = min(len(buffer), self.left)
        buffer[:size] = bytes(size)
        self.left -= size
        return size


def test_a_bomb_is_given_up_while_it_unpacks(unpack, tmp_path):
    """200 MB of zeros, in a zip that says so, in one that lies about it, and in a compressed tar."""
    size = 200_000_000
    bomb = io.BytesIO()
    with zipfile.ZipFile(bomb, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive, archive.open("a", "w") as file:
        for _ in range(size // 1_000_000):
            file.write(bytes(1_000_000))
    with pytest.raises(DocumentTooLarge, match=r"100 times its size.*ingest\.archive_ratio"):
        unpack(bomb.getvalue(), archive_ratio=100)
    with pytest.raises(DocumentTooLarge, match=r"ingest\.archive_bytes"):
        unpack(bomb.getvalue(), archive_ratio=10_000, archive_bytes=20_000_000)
    packed = io.BytesIO()
    with tarfile.open(fileobj=packed, mode="w:gz", compresslevel=1) as tar:
        entry = tarfile.TarInfo(".hidden")  # also what is not taken has to be unpacked
        entry.size = size
        tar.addfile(entry, io.BufferedReader(_Zeros(size)))
    with pytest.raises(DocumentTooLarge, match=r"ingest\.archive_ratio"):
        unpack(packed.getvalue(), "a.tgz", archive_ratio=100)
    assert sum(path.stat().st_size for path in (tmp_path / "spool").iterdir()) < 50_000_000


def test_a_size_that_lies_makes_a_zip_damaged_and_no_file_longer(unpack):
    data = bytearray(_zip(("a.txt", b"0" * 5000)))
    struct.pack_into("<I", data, data.rfind(b"PK\x01\x02") + 24, 10)
    with pytest.raises(DamagedDocument, match="anew"):
        unpack(bytes(data))


def test_a_small_archive_may_unpack_to_any_multiple_of_its_size(unpack):
    assert unpack(_zip(("a.txt", b"0" * 1_000_000)), archive_ratio=2)[1] == {"a.txt": b"0" * 1_000_000}


def test_archives_with_too_many_files_are_refused(unpack):
    data = _zip(*((f"{number}.txt", b"") for number in range(20_000)))
    with pytest.raises(DocumentTooLarge, match=r"more than 100 files.*ingest\.archive_members"):
        unpack(data, archive_members=100)


def test_archives_with_too_many_folders_are_refused(unpack):
    data = _zip(*((f"{number}/", b"") for number in range(2000)))
    with pytest.raises(DocumentTooLarge, match=r"more than 1,000 entries"):
        unpack(data, archive_members=100)


@pytest.mark.parametrize("data", [_zip(("a", b"x")), _tar(("a", b"x")), gzip.compress(b"x")], ids=["zip", "tar", "gz"])
def test_archives_that_are_nested_too_deep_are_not_opened(unpack, data):
    """An archive that holds itself ends here."""
    with pytest.raises(DocumentTooLarge, match=r"inside 3 other documents.*ingest\.archive_depth"):
        unpack(data, depth=3)


def test_a_tar_with_a_name_of_megabytes_is_damaged(unpack):
    name = tarfile.TarInfo("././@LongLink")
    name.type, name.size = tarfile.GNUTYPE_LONGNAME, 5_000_000
    header = name.tobuf(tarfile.GNU_FORMAT)
    with pytest.raises(DamagedDocument, match="million bytes"):
        unpack(_tar(("a.txt", b"a"))[:1024] + header + b"x" * 5_000_192, "a.tar")


def test_a_sparse_file_of_terabytes_is_refused(unpack):
    entry = tarfile.TarInfo("a")
    header = bytearray(entry.tobuf(tarfile.GNU_FORMAT))
    header[156:157] = tarfile.GNUTYPE_SPARSE
    header[386:410] = b"%011o\0%011o\0" % (0, 0)
    header[483:495] = b"%011o\0" % (1 << 32)
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    document, files = unpack(bytes(header) + bytes(1024), "a.tar")
    assert (files, list(_refused(document))) == ({}, ["a"])


# --------------------------------------------------------------------------------------------------------- properties


@given(st.text() | st.text("./\\:C \x00\x1f\u202e~ü", max_size=30))
def test_any_name_becomes_a_relative_path_without_tricks(name):
    """Also that of a file that is refused, because it is shown and stored."""
    clean, reason = clean_name(name)
    path = PurePosixPath(clean)
    assert clean == str(path)
    assert clean != "."
    assert not path.is_absolute()
    assert ".." not in path.parts
    assert not PureWindowsPath(clean).drive
    assert "\\" not in clean
    assert all(char.isprintable() or char.isspace() for char in clean)
    assert not any(char in clean for char in "\n\r\t\0")
    assert len(clean) <= 800
    assert clean_name(clean)[0] == clean
    assert reason is None or reason.endswith(".")


@given(
    st.binary(max_size=300), st.sampled_from([b"PK\x03\x04", b"PK\x05\x06", b"\x1f\x8b\x08", b"BZh9", b"\xfd7zXZ\0"])
)
def test_nonsense_that_begins_like_an_archive_is_damaged(tmp_path_factory, rest, magic):
    path = Path(tmp_path_factory.getbasetemp(), "nonsense")
    path.write_bytes(magic + rest)
    with pytest.raises((DamagedDocument, EmptyDocument)):
        parse(path, "a", LIMITS)
