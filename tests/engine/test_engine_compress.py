from engine_fakes import fill

from recbatch.archive import Archive


def test_a_folder_becomes_rows_with_the_files_bytes(tmp_path, quick_compress):
    written = fill(tmp_path / "in", ["a.png", "b/c d.JPG", "b/é.webp"])
    report = quick_compress(tmp_path / "in")
    assert (report.images, report.quarantined, report.exit_status) == (3, 0, 0)
    archive = Archive.open(str(tmp_path / "archive"))
    assert {record.key: record.stream for record in archive.records()} == written
