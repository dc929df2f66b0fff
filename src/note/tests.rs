use base64ct::{Base64, Encoding as _};
use proptest::prelude::*;

use super::{Checkpoint, SignedNote, VerifierKey, merkle_root, sign_note};
use crate::error::{Error, Malformed, Unsupported};

// The vectors of Go's golang.org/x/mod/sumdb/note.
const NAME: &str = "PeterNeumann";
const SIGNER: &str = "AYEKFALVFGyNhPJEMzD1QIDr+Y7hfZx09iUvxdXHKDFz";
const VERIFIER: &str = "PeterNeumann+c74f20a3+ARpc2QcUPDhMQegwxbzhKqiBfsVkmqq/LDE4izWy10TW";
const TEXT: &str =
    "If you think cryptography is the answer to your problem,\nthen you don't know what your problem is.\n";
const LINE: &str = "— PeterNeumann x08go/ZJkuBS9UG/SffcvIAQxVBtiFupLLr8pAcElZInNIuGUgYN1FFYC2pZSNXgKvqfqdngotpRZb6KE6RyyBwJnAM=\n";

fn seed() -> [u8; 32] {
    Base64::decode_vec(SIGNER).unwrap()[1..].try_into().unwrap()
}

fn key() -> VerifierKey {
    VERIFIER.parse().unwrap()
}

fn verifies(note: &str) -> Result<String, Error> {
    SignedNote::parse(note)?.verify(&key()).map(ToOwned::to_owned)
}

#[test]
fn the_vectors_of_the_go_implementation_hold() {
    assert_eq!(VerifierKey::of(NAME, &seed()).unwrap().to_string(), VERIFIER);
    let note = format!("{TEXT}\n{LINE}");
    assert_eq!(sign_note(NAME, &seed(), TEXT).unwrap(), note);
    assert_eq!(verifies(&note), Ok(TEXT.to_owned()));
}

#[test]
fn a_text_may_have_blank_lines_and_what_looks_like_a_signature() {
    for text in ["a\n\nb\n", "a\n\n", "\n", "— x AAAAAAA=\n", "a\n\n— PeterNeumann x08gowAA\n"] {
        let note = sign_note(NAME, &seed(), text).unwrap();
        assert_eq!(verifies(&note), Ok(text.to_owned()), "{text:?}");
    }
}

#[test]
fn a_name_or_a_text_that_no_note_can_hold_is_not_signed() {
    for name in ["", "a b", "a+b", "a\u{a0}b", "a\nb", "a\u{2003}b"] {
        assert_eq!(sign_note(name, &seed(), TEXT), Err(Malformed::Content.into()));
    }
    for text in ["", "a", "a\r\n", "a\tb\n", "a\0\n"] {
        assert!(matches!(sign_note(NAME, &seed(), text), Err(Error::Malformed(_))), "{text:?}");
    }
    assert_eq!(sign_note(NAME, &seed(), &"a\n".repeat(1 << 19)), Err(Malformed::Length.into()));
}

#[test]
fn abuse_07_every_changed_bit_of_a_note_is_refused() {
    let note = sign_note(NAME, &seed(), "a\nb\n").unwrap();
    for at in 0..note.len() * 8 {
        let mut bytes = note.clone().into_bytes();
        bytes[at / 8] ^= 1 << (at % 8);
        if let Ok(text) = std::str::from_utf8(&bytes) {
            assert!(verifies(text).is_err(), "bit {at}");
        }
    }
    for at in (0..note.len()).filter(|at| note.is_char_boundary(*at)) {
        assert!(verifies(&note[..at]).is_err());
    }
    for more in ["\n", " ", "a", "\n\n", note.trim_end(), "— x AAAA\n"] {
        assert!(verifies(&format!("{note}{more}")).is_err(), "{more:?}");
    }
}

#[test]
fn signatures_of_other_keys_are_passed_over_and_a_wrong_one_of_this_key_refuses() {
    let stranger = "— EnochRoot rwz+eBzmZa0SO3NbfRGzPCpDckykFXSdeX+MNtCOXm2/5n2tiOHp+vAF1aGrQ5ovTG01oOTGwnWLox33WWd1RvMc+QQ=\n";
    let same_name = "— PeterNeumann AAAAAAAA\n";
    assert!(verifies(&format!("{TEXT}\n{stranger}{same_name}{LINE}")).is_ok());
    assert_eq!(verifies(&format!("{TEXT}\n{stranger}")), Err(Error::DoesNotOpen));
    let mut wrong = [0; 68];
    wrong[..4].copy_from_slice(&key().id());
    for length in [5, 67, 68] {
        let wrong = format!("— {NAME} {}\n", Base64::encode_string(&wrong[..length]));
        assert_eq!(verifies(&format!("{TEXT}\n{wrong}{LINE}")), Err(Error::DoesNotOpen));
        assert_eq!(verifies(&format!("{TEXT}\n{LINE}{wrong}")), Err(Error::DoesNotOpen));
    }
    let other = VerifierKey::of(NAME, &[9; 32]).unwrap();
    assert_eq!(
        SignedNote::parse(&format!("{TEXT}\n{LINE}")).unwrap().verify(&other),
        Err(Error::DoesNotOpen)
    );
}

#[test]
fn sixteen_signatures_are_read_and_too_many_are_not() {
    let note = |count: usize| format!("{TEXT}\n{}{LINE}", "— x AAAAAAA=\n".repeat(count));
    assert!(verifies(&note(15)).is_ok() && verifies(&note(63)).is_ok());
    assert_eq!(verifies(&note(64)), Err(Malformed::Length.into()));
}

#[test]
fn abuse_09_a_verifier_key_has_one_spelling() {
    let (head, encoded) = VERIFIER.rsplit_once('+').unwrap();
    for spelling in [
        VERIFIER.replace("c74f20a3", "C74F20A3"),
        VERIFIER.replace("c74f20a3", "c74f20a4"),
        VERIFIER.replace("c74f20a3", "0c74f20a3"),
        VERIFIER.replace("c74f20a3", ""),
        VERIFIER.replace("PeterNeumann", ""),
        VERIFIER.replace("PeterNeumann", "Peter Neumann"),
        VERIFIER.replace("PeterNeumann", "PaulNeumann"),
        format!("{VERIFIER}\n"),
        format!("{VERIFIER}="),
        format!(" {VERIFIER}"),
        format!("{head}+"),
        format!("{head}+{}", &encoded[..40]),
        format!("{NAME}+{encoded}"),
        "x".repeat(1000),
        String::new(),
    ] {
        assert!(matches!(spelling.parse::<VerifierKey>(), Err(Error::Malformed(_))), "{spelling}");
    }
    let ecdsa = format!("{NAME}+c74f20a3+{}", Base64::encode_string(&[2; 33]));
    assert_eq!(ecdsa.parse::<VerifierKey>(), Err(Unsupported::Suite.into()));
}

#[test]
fn the_tree_hashes_of_certificate_transparency_hold() {
    // Leaves and roots of the test data of github.com/google/certificate-transparency, for RFC 6962.
    let leaves: [&[u8]; 8] = [
        b"",
        b"\x00",
        b"\x10",
        b"\x20\x21",
        b"\x30\x31",
        b"\x40\x41\x42\x43",
        b"\x50\x51\x52\x53\x54\x55\x56\x57",
        b"\x60\x61\x62\x63\x64\x65\x66\x67\x68\x69\x6a\x6b\x6c\x6d\x6e\x6f",
    ];
    let roots = [
        "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855",
        "6e340b9cffb37a989ca544e6bb780a2c78901d3fb33738768511a30617afa01d",
        "fac54203e7cc696cf0dfcb42c92a1d9dbaf70ad9e621f4bd8d98662f00e3c125",
        "aeb6bcfe274b70a14fb067a5e5578264db0fa9b51af5e0ba159158f329e06e77",
        "d37ee418976dd95753c1c73862b9398fa2a2cf9b4ff0fdfe8b30cd95209614b7",
        "4e3bbb1f7b478dcfe71fb631631519a3bca12c9aefca1612bfce4c13a86264d4",
        "76e67dadbcdf1e10e1b74ddc608abd2f98dfb16fbce75277b5232a127f2087ef",
        "ddb89be403809e325750d3d263cd78929c2942b7942a34b77e122c9594a74c8c",
        "5dc9da79a70659a9ad559cb701ded9a2ab9d823aad2f4960cfe370eff4604328",
    ];
    for (count, root) in roots.iter().enumerate() {
        let found = merkle_root(&leaves[..count]).map(|byte| format!("{byte:02x}")).concat();
        assert_eq!(found, *root, "{count} leaves");
    }
}

#[test]
fn a_node_is_no_leaf() {
    let two = merkle_root(&[&b"a"[..], b"b"]);
    let forged = [merkle_root(&[b"a"]), merkle_root(&[b"b"])].concat();
    assert_ne!(merkle_root(&[forged]), two);
}

#[test]
fn a_checkpoint_reads_as_the_specification_writes_it() {
    let text = "example.com/behind-the-sofa\n20852163\nCsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=\n";
    let checkpoint = Checkpoint::parse(text).unwrap();
    assert_eq!((checkpoint.origin(), checkpoint.size()), ("example.com/behind-the-sofa", 20_852_163));
    assert_eq!(checkpoint.to_string(), text);
    let more = format!("{text}time 2026\nx\n");
    let extended = Checkpoint::parse(&more).unwrap();
    assert_eq!(extended.extensions().collect::<Vec<_>>(), ["time 2026", "x"]);
    assert_eq!(extended.to_string(), more);
}

#[test]
fn a_second_spelling_of_a_checkpoint_is_refused() {
    let root = "CsUYapGGPo4dkMgIAUqom/Xajj7h2fB2MPA3j2jxq2I=";
    for text in [
        format!("o\n020\n{root}\n"),
        format!("o\n+20\n{root}\n"),
        format!("o\n-1\n{root}\n"),
        format!("o\n\n{root}\n"),
        format!("o\n18446744073709551616\n{root}\n"),
        format!("\n1\n{root}\n"),
        format!("o\n1\n{root}"),
        format!("o\n1\n{root}\n\n"),
        format!("o\n1\n{root}\nx\n\ny\n"),
        format!("o\n1\n{root}\nx\r\n"),
        format!("o\n1\n{}\n", root.trim_end_matches('=')),
        format!("o\n1\n{}\n", root.replace("q2I=", "q2J=")),
        "o\n1\nAAAA\n".to_owned(),
        "o\n1\n".to_owned(),
        String::new(),
    ] {
        assert!(matches!(Checkpoint::parse(&text), Err(Error::Malformed(_))), "{text:?}");
    }
}

proptest! {
    #[test]
    fn abuse_07_no_text_makes_a_parser_panic(text in "\\PC{0,60}(\n{0,3}(— )?\\PC{0,40}\n?){0,4}") {
        drop((SignedNote::parse(&text), text.parse::<VerifierKey>()));
        if let Ok(checkpoint) = Checkpoint::parse(&text) {
            prop_assert_eq!(checkpoint.to_string(), text);
        }
    }
}
