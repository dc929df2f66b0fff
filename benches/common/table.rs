//! What was measured, as Markdown for people and as lines for the plots. Each group of jobs has a file of its own, so that
//! one can be renewed alone; the page is made of all.

use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

use super::rounds::Beside;

pub struct Report {
    group: &'static str,
    lines: Vec<String>,
    write: bool,
}

impl Report {
    pub fn new(group: &'static str, write: bool) -> Self {
        println!("\n{group}, on {}\n\n{HEAD}", machine());
        Report { group, lines: Vec::new(), write }
    }

    /// Shall take at most so many times as long as its limit.
    pub fn at_most(&mut self, job: &str, limit: &str, of: Beside, target: f64) {
        let times = of.times();
        self.row(
            [job, &time(of.ours), &time(of.limit), limit, &short(times), &format!("≤ {target}")],
            times <= target,
        );
    }

    /// Shall be at least so many times as fast as its limit.
    pub fn at_least(&mut self, job: &str, limit: &str, of: Beside, target: f64) {
        let times = 1.0 / of.times();
        let target_text = format!("≥ {target}");
        self.row([job, &time(of.ours), &time(of.limit), limit, &short(times), &target_text], times >= target);
    }

    /// Shall take at most so many nanoseconds.
    pub fn within(&mut self, job: &str, limit: &str, of: Beside, target: f64) {
        let target_text = format!("≤ {}", time(target));
        self.row([job, &time(of.ours), &time(of.limit), limit, "", &target_text], of.ours <= target);
    }

    /// Beside its limit, without a target.
    pub fn plain(&mut self, job: &str, limit: &str, of: Beside) {
        self.add([job, &time(of.ours), &time(of.limit), limit, &short(of.times()), "", ""]);
    }

    /// A figure alone.
    pub fn figure(&mut self, job: &str, figure: &str) {
        self.add([job, figure, "", "", "", "", ""]);
    }

    fn row(&mut self, cells: [&str; 6], met: bool) {
        let [job, ours, limit, name, times, target] = cells;
        self.add([job, ours, limit, name, times, target, if met { "yes" } else { "**no**" }]);
    }

    fn add(&mut self, cells: [&str; 7]) {
        println!("| {} |", cells.join(" | "));
        self.lines.push(format!("row\t{}", cells.join("\t")));
    }

    /// For a plot: two curves, the vault's and the limit's.
    pub fn point(&mut self, plot: &str, series: &str, x: usize, of: Beside) {
        self.lines.push(format!("point\t{plot}\t{series}\t{x}\t{:.1}\t{:.1}", of.ours, of.limit));
    }

    /// Leaves in `docs/performance` what there is so far, where that is asked for.
    pub fn save(&self) {
        if self.write {
            let path = folder().join("results").join(self.group).with_extension("tsv");
            let lines = format!("machine\t{}\n{}\n", machine(), self.lines.join("\n"));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, lines).unwrap();
        }
    }
}

const HEAD: &str = "| job | vault | limit | the limit is | ratio | target | met |\n| --- | ---: | ---: | --- | ---: | ---: | --- |";

/// Makes the page of what is there, in this order.
pub fn page(groups: &[&str]) {
    let mut page = String::from(
        "# Ratios\n\nWritten by `cargo bench --bench ratios -- --write`. What is measured and how is in [README.md](README.md).\n",
    );
    for group in groups {
        let Ok(lines) = fs::read_to_string(folder().join("results").join(group).with_extension("tsv")) else {
            continue;
        };
        let mut lines = lines.lines();
        let machine = lines.next().and_then(|line| line.split_once('\t')).map_or("", |(_, machine)| machine);
        write!(page, "\n## {group}\n\nOn {machine}.\n\n{HEAD}\n").unwrap();
        for row in lines.filter_map(|line| line.strip_prefix("row\t")) {
            writeln!(page, "| {} |", row.split('\t').collect::<Vec<_>>().join(" | ")).unwrap();
        }
    }
    fs::write(folder().join("ratios.md"), page).unwrap();
}

fn folder() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/performance")
}

/// Processor, its cores, kernel, compiler and date.
fn machine() -> String {
    let cpu = fs::read_to_string("/proc/cpuinfo").unwrap_or_default();
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(':'));
    let model = model.map_or("an unknown processor", |(_, model)| model.trim());
    let cores = std::thread::available_parallelism().map_or(0, usize::from);
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    let rustc = std::process::Command::new("rustc").arg("--version").output();
    let rustc = rustc.map(|done| String::from_utf8_lossy(&done.stdout).into_owned()).unwrap_or_default();
    let rustc = rustc.split(" (").next().unwrap_or_default().to_owned();
    let date = jiff::Timestamp::now().strftime("%Y-%m-%d");
    format!("{model}, {cores} cores, {} {}, {}, {date}", std::env::consts::OS, kernel.trim(), rustc.trim())
}

/// Three digits that say something.
pub fn time(nanos: f64) -> String {
    let (value, unit) = match nanos {
        n if n < 1e3 => (n, "ns"),
        n if n < 1e6 => (n / 1e3, "µs"),
        n if n < 1e9 => (n / 1e6, "ms"),
        n => (n / 1e9, "s"),
    };
    format!("{} {unit}", short(value))
}

pub fn short(value: f64) -> String {
    match value {
        v if v < 10.0 => format!("{v:.2}"),
        v if v < 100.0 => format!("{v:.1}"),
        v => format!("{v:.0}"),
    }
}
