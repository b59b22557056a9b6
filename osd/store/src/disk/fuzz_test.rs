//! The short form of the fuzz targets: true bytes, changed a little, at random but the same on each run.

use rand::{Rng, RngExt, SeedableRng, rngs::StdRng};

use super::*;

/// True bytes with some of them other, gone, or more.
fn changed(rng: &mut StdRng, bytes: &[u8]) -> Vec<u8> {
    let mut bytes = bytes.to_vec();
    for _ in 0..rng.random_range(1..4) {
        let at = rng.random_range(0..=bytes.len());
        match rng.random_range(0..6) {
            0 if at < bytes.len() => bytes[at] ^= 1 << rng.random_range(0..8),
            1 if at < bytes.len() => bytes[at] = rng.random(),
            2 if at < bytes.len() => drop(bytes.remove(at)),
            3 => bytes.insert(at, rng.random()),
            4 => {
                // Numbers are little-endian base 128: the largest ones are of interest.
                let huge = [0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 1];
                let len = rng.random_range(1..=10);
                let end = (at + 1).min(bytes.len());
                bytes.splice(at..end, huge[..len - 1].iter().copied().chain([rng.random_range(0..128)]));
            }
            _ => bytes.truncate(at.max(1)),
        }
    }
    bytes
}

/// `NACRE_FUZZ_ROUNDS` for long runs.
fn rounds() -> u64 {
    std::env::var("NACRE_FUZZ_ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(1000)
}

/// Rounds from a seed of their own each, so that one that fails can be had again: `NACRE_FUZZ_SEED`.
fn each_round(mut round: impl FnMut(&mut StdRng)) {
    let only: Option<u64> = std::env::var("NACRE_FUZZ_SEED").ok().and_then(|seed| seed.parse().ok());
    for seed in only.map_or(0..rounds(), |seed| seed..seed + 1) {
        let run = std::panic::AssertUnwindSafe(|| round(&mut StdRng::seed_from_u64(seed)));
        if let Err(panic) = std::panic::catch_unwind(run) {
            eprintln!("NACRE_FUZZ_SEED={seed} shows it");
            std::panic::resume_unwind(panic);
        }
    }
}

#[test]
fn the_base_is_a_store_with_everything_in_it() {
    let tables: std::collections::BTreeSet<u8> = BASE.kv.keys().map(|key| key[0]).collect();
    for table in b"OLRCAMG" {
        assert!(tables.contains(table), "{}", char::from(*table));
    }
    assert!(BASE.records.len() >= 10);
    let memory = |bytes: &Vec<u8>| Arc::new(Memory(Mutex::new(bytes.clone())));
    let engine = open(MemKv::from_map(BASE.kv.clone()), memory(&BASE.blocks), memory(&BASE.journal)).unwrap();
    assert_eq!(engine.state().seq, BASE.applied.seq + BASE.records.len() as u64);
    engine.checkpoint().unwrap();
    assert_eq!(engine.audit(), vec![]);
}

#[test]
fn no_value_of_the_database_makes_the_store_panic() {
    let values: Vec<_> = BASE.kv.iter().collect();
    each_round(|rng| {
        let mut input = Vec::new();
        for _ in 0..rng.random_range(1..3) {
            let which = rng.random_range(0..values.len());
            let value = changed(rng, values[which].1);
            input.extend((which as u16).to_le_bytes());
            input.extend((value.len() as u16).to_le_bytes());
            input.extend(value);
        }
        metadata(&input);
    });
}

#[test]
fn no_record_of_the_journal_makes_the_store_panic() {
    each_round(|rng| {
        let which = rng.random_range(0..BASE.records.len());
        let mut input = vec![rng.random_range(0..=which as u8)];
        // Records with much data are changed at their ends, where the numbers are.
        let record = &BASE.records[which];
        let head = record.len().min(64);
        input.extend(changed(rng, &record[..head]));
        input.extend(&record[head..]);
        journal(&input);
    });
}

#[test]
fn no_bytes_make_a_decoder_panic() {
    let mut bytes = vec![0; 200];
    each_round(|rng| {
        for kind in 0..12 {
            rng.fill_bytes(&mut bytes);
            bytes[0] = kind;
            bytes[1] = rng.random_range(0..3);
            decoder(&bytes[..rng.random_range(1..200)]);
        }
        let ring_bytes = changed(rng, b"NacreGrp");
        let mut input = rng.random_range(0..4096u16).to_le_bytes().to_vec();
        input.extend(ring_bytes);
        ring(&input);
    });
}
