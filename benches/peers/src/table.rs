//! What was measured, in Markdown.

use std::fmt::Write as _;
use std::process::Command;

use crate::disk::{Did, Disk};
use crate::measure::{Job, Keys, Measured};

/// The one it is built with.
const LOCK: &str = include_str!("../Cargo.lock");

pub fn version(krate: &str) -> &'static str {
    let mut lines = LOCK.lines();
    lines.find(|line| line.strip_prefix("name = ").is_some_and(|name| name.trim_matches('"') == krate));
    lines
        .next()
        .and_then(|line| line.strip_prefix("version = "))
        .map_or("?", |version| version.trim_matches('"'))
}

/// Microseconds, or what is readable.
fn time(nanoseconds: f64) -> String {
    match nanoseconds {
        ns if ns < 1e4 => format!("{:.2} µs", ns / 1e3),
        ns if ns < 1e6 => format!("{:.0} µs", ns / 1e3),
        ns if ns < 1e9 => format!("{:.1} ms", ns / 1e6),
        ns => format!("{:.1} s", ns / 1e9),
    }
}

fn times(ratio: f64) -> String {
    match ratio {
        r if r < 10.0 => format!("{r:.2}"),
        r if r < 100.0 => format!("{r:.1}"),
        r => format!("{r:.0}"),
    }
}

impl Job {
    pub const ALL: [Job; 5] = [Job::SealField, Job::OpenField, Job::SealRecord, Job::OpenRecord, Job::Token];

    pub fn name(self) -> &'static str {
        match self {
            Job::SealField => "seal-field",
            Job::OpenField => "open-field",
            Job::SealRecord => "seal-record",
            Job::OpenRecord => "open-record",
            Job::Token => "token",
        }
    }

    fn title(self) -> &'static str {
        match self {
            Job::SealField => "One 64-byte field of one customer, sealed",
            Job::OpenField => "The same, opened",
            Job::SealRecord => "A record of 12 fields, 600 bytes, sealed (ours: 3 cells, 7 lockboxes)",
            Job::OpenRecord => "The same, opened into its fields",
            Job::Token => "A token read and verified",
        }
    }
}

impl Keys {
    fn title(self) -> &'static str {
        match self {
            Keys::Ours => "one a value, for each purpose and day",
            Keys::One => "one for all",
            Keys::EachValue => "one a value",
            Keys::EachPurpose => "one a part, for each purpose",
            Keys::Token => "",
        }
    }
}

/// Machine, day, compiler.
pub fn machine() -> String {
    let cpus = std::fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpus.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let said = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output().ok();
        output.and_then(|output| String::from_utf8(output.stdout).ok()).unwrap_or_default().trim().to_owned()
    };
    let head = said("git", &["rev-parse", "--short", "HEAD"]);
    format!(
        "{}, {cores} cores, {} {}; {}; customer-vault at {head}; {}",
        model.map_or("unknown processor", |(_, model)| model),
        said("uname", &["-s"]),
        said("uname", &["-r"]),
        said("rustc", &["-V"]),
        jiff::Timestamp::now().strftime("%F"),
    )
}

/// The sides of one job, the fastest of ours first, then the peers by their time.
pub fn job(job: Job, measured: &[Measured]) -> String {
    let ours = baseline(job, measured);
    let mut sides: Vec<&Measured> = measured.iter().filter(|one| one.side.job == job).collect();
    sides.sort_by(|a, b| {
        let place = |one: &Measured| (!one.is_ours(), one.nanoseconds);
        place(a).partial_cmp(&place(b)).expect("times are numbers")
    });
    let token = job == Job::Token;
    let (keys, bytes) = if token { ("", "bytes") } else { (" keys |", "bytes more") };
    let rule = if token { "" } else { " --- |" };
    let mut out = format!("### {}\n\n", job.title());
    let _ = writeln!(out, "| crate | version | used how |{keys} time | × ours | {bytes} |");
    let _ = writeln!(out, "| --- | --- | --- |{rule} ---: | ---: | ---: |");
    for Measured { side, nanoseconds } in sides {
        let keys = if token { String::new() } else { format!(" {} |", side.keys.title()) };
        let _ = writeln!(
            out,
            "| {} | {} | {} |{keys} {} | {} | {} |",
            side.krate,
            version(side.krate),
            side.way,
            time(*nanoseconds),
            times(nanoseconds / ours),
            side.bytes,
        );
    }
    out
}

impl Measured {
    fn is_ours(&self) -> bool {
        self.side.krate == "customer-vault"
    }
}

/// Ours with everything held, which stands first.
fn baseline(job: Job, measured: &[Measured]) -> f64 {
    measured.iter().find(|one| one.side.job == job && one.is_ours()).map_or(f64::NAN, |one| one.nanoseconds)
}

/// Deleting and re-wrapping.
pub fn disk(done: &[Did]) -> String {
    let mut out = String::new();
    for what in [Disk::Forget, Disk::Expire] {
        let of: Vec<&Did> = done.iter().filter(|one| one.what == what).collect();
        let Some(first) = of.first() else { continue };
        let title = match what {
            Disk::Forget => "Forget one customer of",
            Disk::Expire => "Expire a day of values, so many:",
        };
        let _ = writeln!(out, "### {title} {}\n", first.of);
        out.push_str("| crate | version | what is done, durably | time | × ours | old copies |\n");
        out.push_str("| --- | --- | --- | ---: | ---: | --- |\n");
        for one in &of {
            let (krate, version) = (one.krate, version(one.krate));
            let _ = writeln!(
                out,
                "| {krate} | {version} | {} | {} | {} | {} |",
                one.way,
                time(one.nanoseconds),
                times(one.nanoseconds / first.nanoseconds),
                one.copies,
            );
        }
        out.push('\n');
    }
    out
}

/// What shall be, and what is.
pub fn targets(measured: &[Measured], done: &[Did]) -> String {
    let peers = |job, keys| {
        let peers = measured.iter().filter(move |one| one.side.job == job && one.side.keys == keys);
        let mut times: Vec<f64> = peers.filter(|one| !one.is_ours()).map(|one| one.nanoseconds).collect();
        times.sort_by(f64::total_cmp);
        times
    };
    let token = |krate| {
        let one = measured.iter().filter(|one| one.side.job == Job::Token && one.side.krate == krate);
        one.map(|one| one.nanoseconds).fold(f64::INFINITY, f64::min)
    };
    let (seal, open) = (baseline(Job::SealRecord, measured), baseline(Job::OpenRecord, measured));
    let fastest_open = peers(Job::OpenRecord, Keys::One)
        .into_iter()
        .chain(peers(Job::OpenRecord, Keys::EachValue))
        .fold(f64::INFINITY, f64::min);
    let tink = |job, way: &str| {
        let of =
            |one: &&Measured| one.side.job == job && one.side.krate == "tink-aead" && one.side.way == way;
        measured.iter().find(of).map_or(f64::NAN, |one| one.nanoseconds)
    };
    let (kept, json) = ("primitive kept", "primitive kept, the record as JSON");
    let each = peers(Job::SealRecord, Keys::EachValue);
    let verify = baseline(Job::Token, measured);
    let ratio = |what, one: &str, two: &str| {
        let of = |krate: &str, way: &str| {
            let one =
                done.iter().find(|one| one.what == what && one.krate == krate && one.way.starts_with(way));
            one.map_or(f64::NAN, |one| one.nanoseconds)
        };
        of(one, two) / of("customer-vault", "")
    };
    let rows: [(&str, f64, f64, bool); 11] = [
        (
            "open what one purpose sees of a record: of the fastest peer's time",
            open / fastest_open,
            1.0,
            true,
        ),
        ("the same: of tink's, kept, with JSON", open / tink(Job::OpenRecord, json), 1.0, true),
        ("seal a record: of tink's, kept", seal / tink(Job::SealRecord, kept), 2.0, true),
        ("the same: of tink's, kept, with JSON", seal / tink(Job::SealRecord, json), 2.0, true),
        (
            "the fastest that makes a data key for each value: of our time to seal",
            each.first().map_or(f64::NAN, |fastest| fastest / seal),
            2.0,
            false,
        ),
        (
            "most that do so, the median: of our time to seal",
            each.get(each.len() / 2).map_or(f64::NAN, |median| median / seal),
            5.0,
            false,
        ),
        ("JWT, HS256: of our time to verify a token", token("jsonwebtoken") / verify, 3.0, false),
        ("macaroon: of our time to verify a token", token("macaroon") / verify, 6.0, false),
        ("Biscuit: of our time to verify a token", token("biscuit-auth") / verify, 100.0, false),
        (
            "wrapping a flat table again: of our forget and shred",
            ratio(Disk::Forget, "tink-aead", "re-wrap"),
            100.0,
            false,
        ),
        (
            "deleting a day's rows in redb: of our expire",
            ratio(Disk::Expire, "redb", "delete"),
            1000.0,
            false,
        ),
    ];
    let mut out = String::from("| what | shall be | is | |\n| --- | ---: | ---: | --- |\n");
    for (what, is, shall, at_most) in rows.into_iter().filter(|row| row.1.is_finite()) {
        let met = if at_most { is <= shall } else { is >= shall };
        let bound = if at_most { "at most" } else { "at least" };
        let met = if met { "met" } else { "**not met**" };
        let _ = writeln!(out, "| {what} | {bound} {shall} × | {} × | {met} |", times(is));
    }
    out
}
