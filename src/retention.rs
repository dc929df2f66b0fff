//! Periods: how long a purpose may use a field, in calendar units, rounded up to the end of a UTC day.

use crate::clock::Day;
use crate::schema::Unit;

/// The last day of a period that begins on `from`: what was sealed at any hour of `from` may be used at any hour of this
/// day. A month that is too short ends on its last day. `None` beyond 2149-06-06.
pub(crate) fn last_day(from: Day, (count, unit): (u16, Unit)) -> Option<Day> {
    let span = match unit {
        Unit::Days => jiff::Span::new().try_days(count),
        Unit::Months => jiff::Span::new().try_months(count),
        Unit::Years => jiff::Span::new().try_years(count),
    };
    Day::from_date(from.date().checked_add(span.ok()?).ok()?)
}

#[cfg(test)]
mod tests {
    use super::last_day;
    use crate::clock::Day;
    use crate::schema::Unit;

    #[test]
    fn periods_are_calendar_periods() {
        let day = |y, m, d| Day::from_ymd(y, m, d).unwrap();
        for (from, period, to) in [
            (day(2026, 1, 1), (90, Unit::Days), day(2026, 4, 1)),
            (day(2024, 2, 29), (1, Unit::Years), day(2025, 2, 28)),
            (day(2024, 1, 31), (1, Unit::Months), day(2024, 2, 29)),
            (day(2020, 2, 29), (10, Unit::Years), day(2030, 2, 28)),
            (day(2026, 12, 31), (1, Unit::Days), day(2027, 1, 1)),
        ] {
            assert_eq!(last_day(from, period), Some(to));
        }
        assert_eq!(last_day(day(2100, 1, 1), (60, Unit::Years)), None);
    }
}
