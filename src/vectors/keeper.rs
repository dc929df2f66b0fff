//! Key files. They hold randomness, so they are written once, and a normal run reads them.

use pollster::block_on;
use serde_json::{Value as Json, json};

use super::{array, count, hex, read, said, unhex, write, writing};
use crate::keeper::{Argon2Cost, FileKeeper, FileSecret, Keeper, Passphrase, VaultId};
use crate::witness::{Line, Witness};

fn vault() -> VaultId {
    VaultId(count(0x10))
}

fn secret(vector: &Json) -> FileSecret {
    match vector["passphrase"].as_str() {
        Some(words) => {
            let words = Passphrase::new(words.to_owned()).unwrap();
            FileSecret::passphrase_at(words, Argon2Cost::insecure_for_tests())
        }
        None => FileSecret::key(array::<32>(&vector["key"]).into()),
    }
}

fn place(name: &str) -> std::path::PathBuf {
    let folder = std::env::temp_dir().join(format!("customer-vault-vectors-{name}-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    folder.join("keeper")
}

fn make(name: &str, show: &str, mut vector: Json) {
    let path = place(name);
    block_on(async {
        let keeper = FileKeeper::create(&path, secret(&vector)).unwrap();
        Keeper::bind(&keeper, vault()).await.unwrap();
        let lines = [vec![1; 40], vec![2; 3], Vec::new()];
        let lines: Vec<Line> = (1..).zip(lines).map(|(number, bytes)| Line { number, bytes }).collect();
        keeper.remember(lines[..1].to_vec()).await.unwrap();
        keeper.remember(lines[1..].to_vec()).await.unwrap();
        let (first, second) = (keeper.candidate(0).await.unwrap(), keeper.candidate(1).await.unwrap());
        keeper.activate(1, first.id).await.unwrap();
        let root = |root: &crate::keeper::Candidate, epoch: u64, activated: bool| {
            json!({
                "id": hex(&root.id),
                "epoch": epoch,
                "activated": activated,
                "wrapped": hex(&root.wrapped),
                "key": hex(root.key.expose()),
            })
        };
        vector["show"] = json!(show);
        vector["kind"] = json!("keeper-file");
        vector["vault"] = json!(hex(vault().bytes()));
        vector["roots"] = json!([root(&first, 1, true), root(&second, 1, false)]);
        vector["lines"] = json!(lines.iter().map(|line| hex(&line.bytes)).collect::<Vec<_>>());
        vector["result"] = json!("opens");
    });
    vector["slots"] = json!(slots(&path));
    // With a little of the room: a tag may end with a zero.
    let mut journal = std::fs::read(path.with_extension("journal")).unwrap();
    let end = journal.iter().rposition(|byte| *byte != 0).unwrap();
    journal.truncate(end + 17);
    vector["journal"] = json!(hex(&journal));
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    write(name, &vector);
}

/// Each slot without the zeros at its end.
fn slots(path: &std::path::Path) -> Vec<String> {
    let bytes = std::fs::read(path).unwrap();
    assert_eq!(bytes.len(), 2 * SLOT);
    let text = |slot: &[u8]| String::from_utf8(slot.to_vec()).unwrap().trim_end_matches('\0').to_owned();
    bytes.chunks(SLOT).map(text).collect()
}

const SLOT: usize = 320 << 10;

/// The vector of a key, as a crash leaves it: with the content that comes after its own.
fn with_two(show: &str, torn: bool) -> Json {
    let mut vector = read("keeper-file-key");
    let path = place("two");
    block_on(async {
        put(&path, &vector);
        let keeper = FileKeeper::open(&path, secret(&vector)).unwrap();
        // What comes after the vector's own content: one root more.
        let root = keeper.candidate(1).await.unwrap();
        let newer = slots(&path).into_iter().find(|slot| !slot.is_empty()).unwrap();
        let older = vector["slots"].as_array().unwrap().iter().find(|slot| *slot != "").unwrap().clone();
        let newer = if torn { newer[..512].to_owned() } else { newer };
        vector["slots"] = json!([newer, older]);
        if !torn {
            let root = json!({
                "id": hex(&root.id),
                "epoch": 1,
                "activated": false,
                "wrapped": hex(&root.wrapped),
                "key": hex(root.key.expose()),
            });
            vector["roots"].as_array_mut().unwrap().push(root);
        }
    });
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    vector["show"] = json!(show);
    vector
}

fn open(name: &str, vector: &Json) -> crate::Result<FileKeeper> {
    let path = place(name);
    put(&path, vector);
    let keeper = FileKeeper::open(&path, secret(vector));
    std::fs::remove_dir_all(path.parent().unwrap()).unwrap();
    keeper
}

fn put(path: &std::path::Path, vector: &Json) {
    let mut file = Vec::new();
    for slot in vector["slots"].as_array().unwrap() {
        let end = file.len() + SLOT;
        file.extend_from_slice(slot.as_str().unwrap().as_bytes());
        file.resize(end, 0);
    }
    for (path, bytes) in
        [(path.to_owned(), file), (path.with_extension("journal"), unhex(&vector["journal"]))]
    {
        std::fs::write(&path, bytes).unwrap();
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt as _;
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
    }
}

#[test]
fn key_files() {
    if writing() {
        let words = json!({ "passphrase": "correct horse battery staple" });
        make("keeper-file-passphrase", "A key file under a passphrase, and its journal.", words);
        let key = json!({ "key": hex(&count::<32>(0x88)) });
        make("keeper-file-key", "A key file under a key of 32 bytes, and its journal.", key);
        let mut altered = read("keeper-file-key");
        for slot in altered["slots"].as_array_mut().unwrap() {
            *slot = json!(slot.as_str().unwrap().replace("sequence ", "sequence 1"));
        }
        altered["show"] = json!("The sequence number in the header is altered.");
        altered["result"] = json!("keeper");
        write("keeper-file-altered-header", &altered);
        let mut wrong = read("keeper-file-passphrase");
        wrong["passphrase"] = json!("correct horse battery stapler");
        wrong["show"] = json!("Another passphrase: refused by the commitment.");
        wrong["result"] = json!("keeper");
        write("keeper-file-wrong-passphrase", &wrong);
    }
    if writing() {
        let show = "Two whole contents: the one with the higher number counts.";
        write("keeper-file-two-contents", &with_two(show, false));
        let show = "The newer content was torn: the older counts.";
        write("keeper-file-torn-content", &with_two(show, true));
    }
    for name in [
        "keeper-file-two-contents",
        "keeper-file-torn-content",
        "keeper-file-passphrase",
        "keeper-file-key",
        "keeper-file-altered-header",
        "keeper-file-wrong-passphrase",
    ] {
        let vector = read(name);
        let opened = open(name, &vector);
        assert_eq!(said(&opened), vector["result"].as_str().unwrap(), "{name}");
        let Ok(keeper) = opened else { continue };
        let held = block_on(keeper.held()).unwrap();
        let roots = vector["roots"].as_array().unwrap();
        assert_eq!(held.len(), roots.len());
        for root in roots {
            let id = array(&root["id"]);
            let one = held.iter().find(|held| held.id == id).unwrap();
            assert_eq!(
                (Some(one.epoch), Some(one.activated)),
                (root["epoch"].as_u64(), root["activated"].as_bool())
            );
            let key = block_on(Keeper::unwrap(&keeper, id, &unhex(&root["wrapped"]))).unwrap();
            assert_eq!(*key.expose(), array::<32>(&root["key"]));
        }
        let lines: Vec<String> =
            block_on(keeper.recall(1)).unwrap().iter().map(|line| hex(&line.bytes)).collect();
        assert_eq!(json!(lines), vector["lines"]);
    }
}
