//! A batch of removals: its way, and each of its phases.

use serde_json::json;

use super::{check, count, hex};
use crate::crypto::Prf;
use crate::journal::Journal;
use crate::keeper::VaultId;
use crate::store::{MemoryStore, Rows, Versioned};
use crate::testing::MemoryKeeper;
use crate::tree::Node;
use crate::tree::batch::{Phase, Way, batch_name, way_name};
use crate::witness::Memory;

#[test]
fn batches() {
    let (vault, key) = (VaultId(count(0x10)), Prf::new(&count(0x44)));
    let journal = Journal::new(vault, key, Rows::new(MemoryStore::new()), Memory::new(MemoryKeeper::new()));
    let targets = [[1, 2, 3], [1, 2, 0xF], [4, 0, 0]].map(|digits| Node::Tree(digits.to_vec()));
    let nodes = Way::of_targets(&targets);
    let above = [&[1, 2][..], &[4, 0], &[1], &[4]].map(|digits| Node::Tree(digits.to_vec()));
    assert_eq!(nodes, [&targets[..], &above].concat());
    let way = Way::new(nodes.into_iter().zip(7..).collect(), targets.len(), false);
    assert_eq!([0, 2, 3, 4].map(|done| way.steps(done, 9)), [&above[..2], &above[2..], &above[3..], &[]]);
    assert_eq!(way.steps(0, 1), above[..1]);
    // The third removal is not made.
    assert_eq!(targets.each_ref().map(|node| way.left_behind(&node.name(), 2)), [Some(7), Some(8), None]);
    assert_eq!(above.each_ref().map(|node| way.left_behind(&node.name(), 2)), [10, 11, 12, 13].map(Some));

    let (name, way_name) = (batch_name(&count(0xA0)), way_name(&count(0xA0)));
    let phases = [
        Phase::Removing { made: 2 },
        Phase::Rotating { made: 2, done: 3 },
        Phase::Left { made: 2, epoch: 5, at_ms: 1_767_614_400_123 },
        Phase::Void,
    ];
    let row = |value: Vec<u8>| Some(Versioned { version: [0; 16], value });
    for phase in phases {
        let mut written = row(phase.encode(&journal, &name));
        assert_eq!(Phase::of(&journal, &name, written.as_ref()), Ok(Some(phase)));
        assert_eq!(Phase::of(&journal, &way_name, written.as_ref()), Ok(None), "of another name");
        written.as_mut().unwrap().value[1] ^= 1;
        assert_eq!(Phase::of(&journal, &name, written.as_ref()), Ok(None), "altered");
    }
    let written = row(way.encode(&journal, &way_name));
    assert_eq!(Way::of(&journal, &way_name, written.as_ref()).unwrap().unwrap().steps(0, 1), above[..1]);

    let vector = json!({
        "show": "The way of a batch that removes from three buckets of a tree of height 3, and a row of each phase.",
        "kind": "batch",
        "vault": hex(vault.bytes()),
        "journal_key": hex(&count::<32>(0x44)),
        "way": { "name": hex(&way_name), "row": hex(&way.encode(&journal, &way_name)), "targets": 3, "whole": false },
        "name": hex(&name),
        "phases": phases.map(|phase| hex(&phase.encode(&journal, &name))),
        "left": { "removals": 2, "epoch": 5 },
    });
    check("batch", &vector);
    let mut altered = vector;
    altered["show"] = json!("A batch whose way has lost the last of its nodes.");
    let cut = way.encode(&journal, &way_name);
    let (content, proof) = cut.split_last_chunk::<32>().unwrap();
    let cut = [&content[..content.len() - 12], proof].concat();
    assert!(Way::of(&journal, &way_name, row(cut.clone()).as_ref()).unwrap().is_none());
    altered["way"]["row"] = json!(hex(&cut));
    altered["result"] = json!("altered");
    check("batch-way-cut", &altered);
}
