//! What the example prints.

use std::time::Duration;

use customer_vault::clock::{Clock as _, SystemClock};

/// A section's heading with what it is about.
pub fn section(title: &str, about: &str) {
    println!("\n\x20\x20{title}\n  {}\n  {about}\n", "─".repeat(title.chars().count()));
}

/// What was done, how often, and how long it took.
#[derive(Default)]
pub struct Done(Vec<(&'static str, usize, Duration)>);

impl Done {
    /// Measures some work that says how many things it did.
    pub fn time<T>(&mut self, what: &'static str, work: impl FnOnce() -> Counted<T>) -> crate::Fallible<T> {
        let started = SystemClock.monotonic();
        let (count, result) = work()?;
        let took = SystemClock.monotonic().saturating_sub(started);
        match self.0.iter_mut().find(|(known, ..)| *known == what) {
            Some((_, counts, time)) => {
                *counts = counts.saturating_add(count);
                *time = time.saturating_add(took);
            }
            None => self.0.push((what, count, took)),
        }
        Ok(result)
    }

    pub fn print(&self) {
        println!("  {:<44} {:>9} {:>9} {:>12}", "what", "how many", "seconds", "per second");
        for (what, count, took) in &self.0 {
            let per_second =
                count.saturating_mul(1000) / usize::try_from(took.as_millis()).unwrap_or(1).max(1);
            println!("  {what:<44} {count:>9} {:>9.2} {per_second:>12}", took.as_secs_f64());
        }
    }
}

/// How many things were done, and what came of it.
pub type Counted<T> = crate::Fallible<(usize, T)>;

/// Sixteen bytes a line, as `hexdump -C` shows them.
pub fn hexdump(bytes: &[u8], lines: usize) {
    for (number, line) in bytes.chunks(16).take(lines).enumerate() {
        let hex: Vec<String> = line.iter().map(|byte| format!("{byte:02x}")).collect();
        let graphic = |byte: &u8| if byte.is_ascii_graphic() { char::from(*byte) } else { '.' };
        let text: String = line.iter().map(graphic).collect();
        println!("    {:04x}  {:<47}  {text}", number.saturating_mul(16), hex.join(" "));
    }
}
