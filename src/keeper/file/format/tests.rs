use super::{Contents, FileKey, Root};
use crate::error::{Error, KeeperError, Result, Unsupported};
use crate::keeper::VaultId;
use crate::keeper::file::secret::{Argon2Cost, FileSecret, Passphrase};
use crate::keeper::file::wrapping::WrappingKey;

fn contents() -> Contents {
    let root = |id: u8, epoch, activated| Root {
        id: [id; 16],
        epoch,
        activated,
        key: WrappingKey::from_slice(&[0xC0 | id; 32]),
    };
    Contents {
        vault: Some(VaultId([0xAB; 16])),
        sequence: 41,
        lines: 3,
        journal: WrappingKey::from_slice(&[0x77; 32]),
        active: Some([2; 16]),
        roots: vec![root(1, 6, true), root(2, 7, true), root(3, 7, false)],
    }
}

fn raw() -> FileSecret {
    FileSecret::key([0x5A; 32].into())
}

fn words(text: &str) -> FileSecret {
    FileSecret::passphrase_at(Passphrase::new(text.to_owned()).unwrap(), Argon2Cost::insecure_for_tests())
}

fn file(secret: &FileSecret) -> Vec<u8> {
    FileKey::fresh(secret).unwrap().write(&contents()).unwrap()
}

fn read(bytes: &[u8], secret: &FileSecret) -> Result<Contents> {
    FileKey::open(bytes, secret, Argon2Cost::LIMIT).map(|(_, contents)| contents)
}

/// The same file with one line said otherwise.
fn with(name: &str, value: &str) -> Vec<u8> {
    let text = String::from_utf8(file(&words("correct horse battery"))).unwrap();
    let lines = text
        .lines()
        .map(|line| if line.starts_with(name) { format!("{name}{value}\n") } else { format!("{line}\n") });
    lines.collect::<String>().into_bytes()
}

#[test]
fn what_is_written_is_read_again() {
    for secret in [raw(), words("correct horse battery")] {
        let read = read(&file(&secret), &secret).unwrap();
        assert_eq!((read.vault, read.sequence, read.lines), (Some(VaultId([0xAB; 16])), 41, 3));
        assert_eq!((read.active, read.epoch()), (Some([2; 16]), Some(7)));
        assert_eq!(read.journal.expose(), &[0x77; 32]);
        let roots: Vec<_> = read
            .roots
            .iter()
            .map(|root| (root.id[0], root.epoch, root.activated, root.key.expose()[0]))
            .collect();
        assert_eq!(roots, [(1, 6, true, 0xC1), (2, 7, true, 0xC2), (3, 7, false, 0xC3)]);
    }
}

#[test]
fn an_operator_can_read_the_header() {
    let text = String::from_utf8(file(&words("correct horse battery"))).unwrap();
    let lines: Vec<_> = text.lines().collect();
    assert_eq!(lines[0], "customer-vault keeper 1");
    assert_eq!(lines[1], "kdf argon2id m=8 t=1 p=1");
    assert_eq!(lines[4], format!("vault {}", "ab".repeat(16)));
    assert_eq!(lines[5], "sequence 41");
    assert_eq!(lines.len(), 8);
}

#[test]
fn the_wrong_secret_is_told_from_damage() {
    let (by_words, by_key) = (words("correct horse battery"), raw());
    for (secret, other) in [
        (&by_words, &words("correct horse batterY")),
        (&by_key, &FileSecret::key([0x5B; 32].into())),
        (&by_words, &by_key),
        (&by_key, &by_words),
    ] {
        assert_eq!(read(&file(secret), other).err(), Some(KeeperError::WrongSecret.into()));
    }
}

#[test]
fn abuse_07_every_flipped_bit_is_refused() {
    let secret = raw();
    let good = file(&secret);
    for at in 0..good.len() {
        for bit in 0..8 {
            let mut bytes = good.clone();
            bytes[at] ^= 1 << bit;
            assert!(read(&bytes, &secret).is_err(), "byte {at}, bit {bit}");
        }
    }
}

#[test]
fn abuse_07_every_truncation_and_extension_is_refused() {
    let secret = raw();
    let good = file(&secret);
    for length in 0..good.len() {
        assert_eq!(read(&good[..length], &secret).err(), Some(KeeperError::Damaged.into()), "{length}");
    }
    for more in 1..=64 {
        for fill in [0, b'\n', b'A', b'=', 0xFF] {
            let bytes = [good.as_slice(), &vec![fill; more]].concat();
            assert_eq!(read(&bytes, &secret).err(), Some(KeeperError::Damaged.into()));
        }
    }
}

#[test]
fn abuse_08_another_version_or_kdf_is_unsupported_before_any_key_is_touched() {
    let wrong = words("not the right words");
    for (line, value, expected) in [
        ("customer-vault keeper ", "2", Unsupported::Version),
        ("customer-vault keeper ", "0", Unsupported::Version),
        ("customer-vault keeper ", "18446744073709551615", Unsupported::Version),
        ("kdf ", "scrypt n=1", Unsupported::Suite),
        ("kdf ", "argon2i m=8 t=1 p=1", Unsupported::Suite),
    ] {
        assert_eq!(read(&with(line, value), &wrong).err(), Some(Error::Unsupported(expected)), "{value}");
    }
    for version in ["01", "", "one", "1 ", "+1", "18446744073709551616"] {
        let bytes = with("customer-vault keeper ", version);
        assert_eq!(read(&bytes, &wrong).err(), Some(KeeperError::Damaged.into()), "{version}");
    }
}

#[test]
fn abuse_09_there_is_one_way_to_write_each_line() {
    let secret = words("correct horse battery");
    let upper = |bytes: Vec<u8>| String::from_utf8(bytes).unwrap().replace("abab", "ABAB").into_bytes();
    let text = String::from_utf8(file(&secret)).unwrap();
    for bytes in [
        upper(file(&secret)),
        text.replace('\n', "\r\n").into_bytes(),
        text.replacen('\n', "\n\n", 1).into_bytes(),
        text.replace("body ", "body  ").into_bytes(),
        format!("\u{feff}{text}").into_bytes(),
        with("sequence ", "041"),
        with("sequence ", "+41"),
        with("kdf ", "argon2id m=08 t=1 p=1"),
        with("kdf ", "argon2id t=1 m=8 p=1"),
        with("kdf ", "argon2id m=8 t=1 p=1 "),
        with("kdf ", "argon2id m=8 t=1 p=1 keyid=x"),
        with("kdf ", "argon2id m=8 t=1"),
        with("kdf ", "argon2id m=-8 t=1 p=1"),
    ] {
        assert_eq!(read(&bytes, &secret).err(), Some(KeeperError::Damaged.into()));
    }
}

#[test]
fn abuse_10_costs_beyond_the_bound_are_refused_before_memory_is_taken() {
    let secret = words("correct horse battery");
    for parameters in [
        "m=4294967296 t=1 p=1",
        "m=4294967295 t=1 p=1",
        "m=1048577 t=1 p=1",
        "m=8 t=4294967296 p=1",
        "m=8 t=4294967295 p=1",
        "m=8 t=17 p=1",
        "m=8 t=0 p=1",
        "m=1048576 t=1 p=16777216",
        "m=1048576 t=1 p=5",
        "m=8 t=1 p=0",
        "m=8 t=1 p=4",
        "m=7 t=1 p=1",
        "m=0 t=1 p=1",
    ] {
        let bytes = with("kdf ", &format!("argon2id {parameters}"));
        assert_eq!(read(&bytes, &secret).err(), Some(Unsupported::Parameters.into()), "{parameters}");
    }
    let low = FileKey::open(&with("kdf ", "argon2id m=9 t=1 p=1"), &secret, Argon2Cost::insecure_for_tests());
    assert_eq!(low.err(), Some(Unsupported::Parameters.into()), "the caller's bound");
}

#[test]
fn abuse_10_a_salt_of_another_length_is_refused() {
    let secret = words("correct horse battery");
    for salt in ["", "00", &"0".repeat(31), &"0".repeat(33), &"00".repeat(100_000)] {
        assert_eq!(read(&with("salt ", salt), &secret).err(), Some(KeeperError::Damaged.into()));
    }
}

#[test]
fn weaker_costs_in_the_header_do_not_make_another_passphrase_fit() {
    let bytes = with("kdf ", "argon2id m=16 t=1 p=1");
    assert_eq!(read(&bytes, &words("correct horse battery")).err(), Some(KeeperError::WrongSecret.into()));
}

/// The body could be made to open under two keys; the commitment in the header can be that of one only.
#[test]
fn abuse_11_a_body_that_opens_under_a_second_key_is_refused_by_the_commitment() {
    let (mine, theirs) = (raw(), FileSecret::key([0x5B; 32].into()));
    let mut key = FileKey::fresh(&theirs).unwrap();
    key.commitment = FileKey::derive(&mine, key.kdf, key.salt).unwrap().commitment;
    let bytes = key.write(&contents()).unwrap();
    assert_eq!(read(&bytes, &theirs).err(), Some(KeeperError::WrongSecret.into()));
    // The other key's commitment fits, but what it authenticates is another header and body.
    assert_eq!(read(&bytes, &mine).err(), Some(KeeperError::Damaged.into()));
}

#[test]
fn abuse_12_no_two_writes_share_a_key() {
    let key = FileKey::fresh(&raw()).unwrap();
    let (first, second) = (key.write(&contents()).unwrap(), key.write(&contents()).unwrap());
    let body =
        |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap().split_once("body ").unwrap().1.to_owned();
    assert_ne!(body(&first), body(&second));
    assert_eq!(first.len(), second.len());
}

#[test]
fn contents_that_contradict_themselves_are_refused() {
    let secret = raw();
    let key = FileKey::fresh(&secret).unwrap();
    let refused = |change: fn(&mut Contents)| {
        let mut contents = contents();
        change(&mut contents);
        let bytes = key.write(&contents).unwrap();
        assert_eq!(read(&bytes, &secret).err(), Some(KeeperError::Damaged.into()));
    };
    refused(|contents| contents.active = None);
    refused(|contents| contents.active = Some([9; 16]));
    refused(|contents| contents.active = Some([3; 16]));
    refused(|contents| contents.active = Some([1; 16]));
    refused(|contents| contents.roots.swap(0, 1));
    refused(|contents| contents.roots[1].id = [1; 16]);
}

#[test]
fn no_key_is_in_the_file_or_in_debug() {
    let secret = raw();
    let bytes = file(&secret);
    let (key, contents) = FileKey::open(&bytes, &secret, Argon2Cost::LIMIT).unwrap();
    let shown = format!("{key:?} {contents:?}");
    for canary in ["c1c1", "C1C1", "193, 193", "7777", "119, 119", "wcHB", "d3d3"] {
        assert!(!shown.contains(canary), "{canary}");
        assert!(!String::from_utf8_lossy(&bytes).contains(canary), "{canary}");
    }
    assert!(!shown.contains(&format!("{:?}", key.key.as_slice())));
}
