//! What is written is read back; what is damaged is refused or read as something, and never more than that.

use std::io::Cursor;

use proptest::prelude::*;

use super::*;

const CLUSTER: u64 = 1 << 16;

/// A file of a disk of which only these ranges hold anything.
fn file(disk: &[u8], ranges: &[Range]) -> Vec<u8> {
    let plan = Plan::new(disk.len() as u64, ranges);
    let mut out = Vec::new();
    plan.write_head(&mut out).unwrap();
    for range in plan.ranges() {
        let end = ((range.offset + range.len) as usize).min(disk.len());
        out.extend_from_slice(&disk[range.offset as usize..end]);
        out.resize(out.len() + (range.offset + range.len) as usize - end, 0);
    }
    assert_eq!(out.len() as u64, plan.parts().total() * plan.cluster());
    out
}

fn read(file: &[u8]) -> Result<Vec<u8>, Error> {
    let mut reader = Reader::open(Cursor::new(file))?;
    // No test makes a larger one: a damaged header says it.
    let mut disk = vec![0; usize::try_from(reader.size().min(4 << 20)).unwrap()];
    while let Some((offset, data)) = reader.next_data()? {
        let Some(place) = disk.get_mut(offset as usize..offset as usize + data.len()) else { break };
        place.copy_from_slice(&data);
    }
    Ok(disk)
}

proptest! {
    #[test]
    fn what_is_written_is_read_back(
        size in 1u64..40 * CLUSTER,
        cuts in proptest::collection::vec((0u64..40 * CLUSTER, 1u64..3 * CLUSTER), 0..8),
    ) {
        let mut disk = vec![0u8; size as usize];
        let mut ranges: Vec<Range> = cuts
            .into_iter()
            .filter(|(offset, _)| *offset < size)
            .map(|(offset, len)| Range { offset, len: len.min(size - offset) })
            .collect();
        ranges.sort_by_key(|range| range.offset);
        for range in &ranges {
            for at in range.offset..range.offset + range.len {
                disk[at as usize] = (at % 251) as u8 + 1;
            }
        }
        let file = file(&disk, &ranges);
        prop_assert!(read(&file).unwrap() == disk);
    }

    #[test]
    fn a_damaged_file_is_no_more_than_an_error(at in 0usize..4 * CLUSTER as usize, byte: u8, cut in 0usize..400_000) {
        let disk: Vec<u8> = (0..3 * CLUSTER).map(|at| (at % 251) as u8).collect();
        let mut file = file(&disk, &[Range { offset: 0, len: CLUSTER }, Range { offset: 2 * CLUSTER, len: CLUSTER }]);
        // Most of a header is worth more than most of a table.
        let at = if at % 2 == 0 { at % HEADER } else { at };
        file[at] = byte;
        file.truncate(file.len().saturating_sub(cut / 2));
        let _ = read(&file);
    }
}

#[test]
fn large_images_have_large_clusters_and_tables_that_fit() {
    let plan = Plan::new(1 << 50, &[Range { offset: (1 << 50) - 4096, len: 4096 }]);
    assert_eq!(plan.cluster(), 2 << 20);
    let mut head = Vec::new();
    plan.write_head(&mut head).unwrap();
    assert_eq!(head.len() as u64, (plan.parts().total() - 1) * plan.cluster());
    assert!(Plan::new(crate::create::LARGEST, &[]).write_head(&mut Vec::new()).is_err());
}

#[test]
fn what_this_release_does_not_read_is_refused() {
    let good = file(&[7; 512], &[Range { offset: 0, len: 512 }]);
    assert!(read(&good).unwrap() == [7; 512]);
    for (at, byte, why) in [
        (0, 0, "no qcow2"),
        (7, 4, "version 4"),
        (15, 1, "backing file"),
        (23, 60, "no qcow2 file can be"),
        (35, 1, "encrypted"),
        (79, 2, "corrupt"),
        (79, 4, "another file"),
        (79, 16, "does not know"),
        (36, 255, "longer than any may be"),
        (24, 16, "too short for its size"),
        (39, 0, "too short for its size"),
    ] {
        let mut bad = good.clone();
        bad[at] = byte;
        let error = read(&bad).unwrap_err().to_string();
        assert!(error.contains(why), "{error} instead of {why}");
    }
}
