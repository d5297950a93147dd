//! Archives whose bytes depend on nothing but the files.

use std::io::Write as _;

use anyhow::Context as _;
use flate2::{Compression, GzBuilder};
use tar::{EntryType, Header};

/// A file in an archive.
#[derive(Debug)]
pub(crate) struct Entry {
    name: &'static str,
    mode: u32,
    bytes: Vec<u8>,
}

impl Entry {
    pub(crate) fn file(name: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            name,
            mode: 0o644,
            bytes,
        }
    }

    pub(crate) fn program(name: &'static str, bytes: Vec<u8>) -> Self {
        Self {
            name,
            mode: 0o755,
            bytes,
        }
    }
}

/// A compressed archive of the files in this order: of nobody, and of no time.
pub(crate) fn pack(entries: &[Entry]) -> anyhow::Result<Vec<u8>> {
    let mut archive = tar::Builder::new(Vec::new());
    for entry in entries {
        let mut header = Header::new_ustar();
        header.set_entry_type(EntryType::Regular);
        header.set_mode(entry.mode);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.set_size(entry.bytes.len() as u64);
        archive
            .append_data(&mut header, entry.name, entry.bytes.as_slice())
            .with_context(|| format!("failed to pack {}", entry.name))?;
    }
    let archive = archive.into_inner().context("failed to end an archive")?;
    // Neither a name nor a time nor the system that it was made on.
    let mut zip = GzBuilder::new()
        .mtime(0)
        .operating_system(255)
        .write(Vec::new(), Compression::best());
    zip.write_all(&archive).context("failed to compress an archive")?;
    zip.finish().context("failed to compress an archive")
}

#[cfg(test)]
mod tests {
    use std::io::Read as _;

    use super::*;

    fn entries() -> [Entry; 2] {
        [
            Entry::file("LICENSE", b"yours".to_vec()),
            Entry::program("kubectl-coral", vec![7; 100_000]),
        ]
    }

    #[test]
    fn the_same_files_give_the_same_bytes() {
        let one = pack(&entries()).unwrap();
        assert_eq!(one, pack(&entries()).unwrap());
        // The header of gzip: no flags, no time, an unknown system.
        assert_eq!(one[..10], [0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 2, 255]);
    }

    #[test]
    fn what_is_packed_comes_out_again() {
        let packed = pack(&entries()).unwrap();
        let mut archive = tar::Archive::new(flate2::read::GzDecoder::new(packed.as_slice()));
        let mut found = Vec::new();
        for entry in archive.entries().unwrap() {
            let mut entry = entry.unwrap();
            let mut bytes = Vec::new();
            entry.read_to_end(&mut bytes).unwrap();
            let header = entry.header();
            assert_eq!(
                (header.uid().unwrap(), header.gid().unwrap(), header.mtime().unwrap()),
                (0, 0, 0)
            );
            assert_eq!(header.username().unwrap(), Some(""));
            found.push((
                entry.path().unwrap().display().to_string(),
                header.mode().unwrap(),
                bytes.len(),
            ));
        }
        assert_eq!(
            found,
            [
                ("LICENSE".to_owned(), 0o644, 5),
                ("kubectl-coral".to_owned(), 0o755, 100_000)
            ]
        );
    }
}
