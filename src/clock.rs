//! Time. Only this module reads the machine's clocks (invariant 2).

use std::{fmt, future::Future, pin::Pin, time::Duration};

/// A wait that a [`Clock`] carries out.
pub type Sleep = Pin<Box<dyn Future<Output = ()> + Send>>;

/// Where the vault's time comes from. The vault asks for both kinds: a process that was stopped and resumed, or a
/// machine whose wall clock was set, shows in one of them.
pub trait Clock: Send + Sync + fmt::Debug + 'static {
    /// Milliseconds since 1970-01-01T00:00:00Z, leap seconds not counted.
    fn wall(&self) -> i64;
    /// Never goes backwards, from an arbitrary start.
    fn monotonic(&self) -> Duration;
    /// Ends after `duration`.
    fn sleep(&self, duration: Duration) -> Sleep;
}

/// The machine's own clocks. Sleeping takes a thread for as long as it lasts, so that no async runtime is needed; the
/// vault sleeps only where several processes share it.
#[derive(Clone, Copy, Debug, Default)]
#[expect(clippy::exhaustive_structs, reason = "it has nothing to add")]
pub struct SystemClock;

impl Clock for SystemClock {
    #[expect(clippy::disallowed_methods, reason = "this is the module that may")]
    fn wall(&self) -> i64 {
        let now = std::time::SystemTime::now();
        match now.duration_since(std::time::UNIX_EPOCH) {
            Ok(since) => millis(since),
            Err(before) => millis(before.duration()).saturating_neg(),
        }
    }

    #[expect(clippy::disallowed_methods, reason = "this is the module that may")]
    fn monotonic(&self) -> Duration {
        static START: std::sync::OnceLock<std::time::Instant> = std::sync::OnceLock::new();
        START.get_or_init(std::time::Instant::now).elapsed()
    }

    fn sleep(&self, duration: Duration) -> Sleep {
        let (done, waiting) = futures_channel::oneshot::channel();
        let thread = std::thread::Builder::new().name("customer-vault-sleep".into()).spawn(move || {
            std::thread::sleep(duration);
            // Nobody waits any more: nothing to do.
            let _ = done.send(());
        });
        Box::pin(async move {
            if thread.is_err() {
                std::thread::sleep(duration);
            }
            let _ = waiting.await;
        })
    }
}

/// Whole milliseconds. `as_millis` counts in 128 bits, which shows where every opening asks.
fn millis(duration: Duration) -> i64 {
    let seconds = i64::try_from(duration.as_secs()).unwrap_or(i64::MAX);
    seconds.saturating_mul(1000).saturating_add(i64::from(duration.subsec_millis()))
}

/// A day in UTC, as days since 1970-01-01: 0 to 65,535 (2149-06-06).
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Day(pub(crate) u16);

const MS_PER_DAY: i64 = 86_400_000;

impl Day {
    /// Days since 1970-01-01.
    #[must_use]
    pub const fn number(self) -> u16 {
        self.0
    }

    /// The day that a moment lies in; the first or last day that can be named where it lies outside.
    #[must_use]
    pub fn of(wall_ms: i64) -> Self {
        Day(u16::try_from(wall_ms.div_euclid(MS_PER_DAY).max(0)).unwrap_or(u16::MAX))
    }

    /// From a calendar date in UTC.
    ///
    /// # Errors
    ///
    /// [`Misuse::Day`](crate::error::Misuse::Day) where there is no such date, or before 1970 or after 2149-06-06.
    pub fn from_ymd(year: i16, month: i8, day: i8) -> crate::error::Result<Self> {
        let date = jiff::civil::Date::new(year, month, day).map_err(|_| crate::error::Misuse::Day)?;
        Self::from_date(date).ok_or(crate::error::Misuse::Day.into())
    }

    /// The first millisecond of this day.
    #[must_use]
    pub fn start_ms(self) -> i64 {
        i64::from(self.0).saturating_mul(MS_PER_DAY)
    }

    /// The first millisecond after this day.
    #[must_use]
    pub fn end_ms(self) -> i64 {
        self.start_ms().saturating_add(MS_PER_DAY)
    }

    pub(crate) fn date(self) -> jiff::civil::Date {
        let epoch = jiff::civil::Date::constant(1970, 1, 1);
        epoch.saturating_add(jiff::Span::new().days(i32::from(self.0)))
    }

    pub(crate) fn from_date(date: jiff::civil::Date) -> Option<Self> {
        let epoch = jiff::civil::Date::constant(1970, 1, 1);
        u16::try_from(date.since(epoch).ok()?.get_days()).ok().map(Day)
    }

    /// So many days later; at most 2149-06-06.
    #[must_use]
    pub fn plus(self, days: u16) -> Self {
        Day(self.0.saturating_add(days))
    }

    /// The day before; the first day that can be named has none.
    pub(crate) fn before(self) -> Option<Self> {
        self.0.checked_sub(1).map(Day)
    }
}

impl fmt::Display for Day {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.date())
    }
}

/// A moment as RFC 3339 in UTC with seconds, for notes and reports.
pub(crate) fn rfc3339(wall_ms: i64) -> String {
    jiff::Timestamp::from_second(wall_ms.div_euclid(1000))
        .map_or_else(|_| "out-of-range".into(), |t| t.to_string())
}
