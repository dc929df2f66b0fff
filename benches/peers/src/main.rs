//! customer-vault beside other crates that do the same jobs, in one run, on one machine.
//!
//! `cargo run --release -- [--write] [job]…`: the jobs are `seal-field`, `open-field`, `seal-record`, `open-record`, `token`,
//! `forget` and `expire`; without one, all. `--write` writes the page `docs/performance/peers.md`. `SECONDS` is how long one
//! job goes on at most, `SUBJECTS` and `VALUES` how many customers and values there are, `TMPDIR` where the files lie.

mod disk;
mod measure;
mod plain;
mod table;
mod tokens;
mod values;
mod vault;

use std::time::Duration;

use measure::{Job, by_turns};

/// Named, with the reason: what was looked at and is not in the tables.
const LEFT_OUT: &str = "\
- kms-aead 0.31 needs Rust 1.99: the newest that builds with Rust 1.95 is measured.
- vitaminc's key service is AWS KMS alone, so its data keys are wrapped by its `Key::wrap`; the facade crate `vitaminc`
  re-exports what is measured.
- The key services of envelopers, kms-aead and Tink lie in the network: what is measured has a key in memory instead.
";

#[cfg(feature = "esdk")]
const ESDK: &str = "";
#[cfg(not(feature = "esdk"))]
const ESDK: &str = "- aws-esdk is behind the feature `esdk`, without which this was built: it more than doubles what is built.\n";

fn main() {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let asked = |name: &str| {
        let names: Vec<&String> = arguments.iter().filter(|argument| !argument.starts_with("--")).collect();
        names.is_empty() || names.iter().any(|argument| *argument == name)
    };
    let number = |name: &str, otherwise: usize| {
        std::env::var(name).ok().and_then(|value| value.parse().ok()).unwrap_or(otherwise)
    };
    let write = arguments.iter().any(|argument| argument == "--write");
    assert!(!write || arguments.len() == 1, "the page has all jobs: --write goes alone");
    let at_most = Duration::from_secs(number("SECONDS", 20) as u64);

    let mut sides: Vec<_> =
        [vault::sides(), values::sides(), tokens::sides()].into_iter().flatten().collect();
    let mut measured = Vec::new();
    let mut page = format!("# Beside other crates\n\n{}.\n\n", table::machine());
    let mut tables = String::new();
    for job in Job::ALL.into_iter().filter(|job| asked(job.name())) {
        let of = sides.extract_if(.., |side| side.job == job).collect();
        measured.extend(by_turns(of, at_most));
        let table = table::job(job, &measured);
        println!("{table}");
        tables.push_str(&table);
        tables.push('\n');
    }
    drop(sides);

    let mut done = Vec::new();
    if asked("forget") {
        done.extend(disk::forget(number("SUBJECTS", 100_000)));
    }
    if asked("expire") {
        done.extend(disk::expire(number("VALUES", 100_000)));
    }
    let table = table::disk(&done);
    println!("{table}");
    tables.push_str(&table);

    let targets = table::targets(&measured, &done);
    println!("{targets}\n{LEFT_OUT}{ESDK}");
    page.push_str(include_str!("page.md"));
    page.push_str(&format!(
        "\n## The aims\n\n{targets}\n## The jobs\n\n{tables}## Not in the tables\n\n{LEFT_OUT}{ESDK}"
    ));
    if write {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/performance/peers.md");
        std::fs::create_dir_all(std::path::Path::new(path).parent().unwrap()).unwrap();
        std::fs::write(path, page).unwrap();
    }
}
