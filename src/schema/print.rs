//! The register of processing (GDPR Art. 30), for people and for programs.
//!
//! Labels are `a-z 0-9 -`. Documentation is any text that stood in the shop's source, and is escaped.

use std::fmt::{self, Display, Write as _};

use super::registry::{Declaration, FieldEntry, RecordEntry, State};
use super::{Registry, Unit};

impl Registry {
    /// The register of processing as a Markdown page: purposes with their bases, then each record with its fields,
    /// current, retired and reserved.
    #[must_use]
    pub fn to_markdown(&self) -> String {
        Markdown(self).to_string()
    }

    /// The register of processing as JSON (RFC 8259): one object, `version` 1.
    #[must_use]
    pub fn to_json(&self) -> String {
        JsonObject(self).to_string()
    }

    fn write_markdown(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("# Register of processing\n\n## Purposes\n\n")?;
        out.write_str("| number | purpose | basis | longest period ever (days) | fields | description |\n")?;
        out.write_str("| --- | --- | --- | --- | --- | --- |\n")?;
        for (number, purpose) in &self.purposes {
            let (label, basis, longest) = (&purpose.label, purpose.basis.label(), purpose.longest_days);
            let fields = self.fields_of(*number);
            writeln!(
                out,
                "| {number} | {label} | {basis} | {longest} | {fields} | {} |",
                Cell(&purpose.doc)
            )?;
        }
        for (label, record) in &self.records {
            writeln!(out, "\n## Record `{label}`\n")?;
            if !record.doc.is_empty() {
                writeln!(out, "{}\n", Cell(&record.doc))?;
            }
            out.write_str(
                "| number | field | class | sensitive | purposes and periods | state | description |\n",
            )?;
            out.write_str("| --- | --- | --- | --- | --- | --- | --- |\n")?;
            for (number, field) in &record.fields {
                self.write_row(out, *number, field)?;
            }
        }
        Ok(())
    }

    fn write_row(&self, out: &mut fmt::Formatter<'_>, number: u16, field: &FieldEntry) -> fmt::Result {
        let (label, state) = (&field.label, state(&field.state));
        let Some(declaration) = field.state.declaration() else {
            return writeln!(out, "| {number} | {label} |  |  |  | {state} |  |");
        };
        let (class, sensitive) =
            (declaration.class.label(), if declaration.sensitive { "yes" } else { "no" });
        write!(out, "| {number} | {label} | {class} | {sensitive} | ")?;
        for (i, (purpose, (n, unit))) in declaration.terms.iter().enumerate() {
            let comma = if i == 0 { "" } else { ", " };
            write!(out, "{comma}{}: {n} {}", self.label_of(*purpose), unit_of(*n, *unit))?;
        }
        writeln!(out, " | {state} | {} |", Cell(&declaration.doc))
    }

    fn write_json(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("{\"version\":1,\"purposes\":[")?;
        for (i, (number, purpose)) in self.purposes.iter().enumerate() {
            let (basis, longest) = (purpose.basis.label(), purpose.longest_days);
            let fields = self.fields_of(*number);
            write!(out, "{}{{\"number\":{number},\"label\":{},", comma(i), Json(&purpose.label))?;
            write!(out, "\"basis\":\"{basis}\",\"longest_days\":{longest},\"fields\":{fields},")?;
            write!(out, "\"description\":{}}}", Json(&purpose.doc))?;
        }
        out.write_str("],\"records\":[")?;
        for (i, (label, record)) in self.records.iter().enumerate() {
            let (label, description) = (Json(label), Json(&record.doc));
            write!(out, "{}{{\"label\":{label},\"description\":{description},\"fields\":[", comma(i))?;
            self.write_fields(out, record)?;
            out.write_str("]}")?;
        }
        out.write_str("]}")
    }

    fn write_fields(&self, out: &mut fmt::Formatter<'_>, record: &RecordEntry) -> fmt::Result {
        for (i, (number, field)) in record.fields.iter().enumerate() {
            write!(out, "{}{{\"number\":{number},\"label\":{},", comma(i), Json(&field.label))?;
            write!(out, "\"state\":\"{}\"", state(&field.state))?;
            if let Some(declaration) = field.state.declaration() {
                self.write_declaration(out, declaration)?;
            }
            out.write_char('}')?;
        }
        Ok(())
    }

    fn write_declaration(&self, out: &mut fmt::Formatter<'_>, declaration: &Declaration) -> fmt::Result {
        let (class, sensitive) = (declaration.class.label(), declaration.sensitive);
        write!(out, ",\"class\":\"{class}\",\"sensitive\":{sensitive},\"purposes\":[")?;
        for (i, (purpose, (n, unit))) in declaration.terms.iter().enumerate() {
            let (label, unit) = (Json(self.label_of(*purpose)), unit.label());
            write!(out, "{}{{\"number\":{purpose},\"label\":{label},", comma(i))?;
            write!(out, "\"period\":{n},\"unit\":\"{unit}\"}}")?;
        }
        write!(out, "],\"description\":{}", Json(&declaration.doc))
    }

    fn label_of(&self, purpose: u16) -> &str {
        self.purposes.get(&purpose).map_or("", |entry| &entry.label)
    }

    /// How many current fields name the purpose.
    fn fields_of(&self, purpose: u16) -> usize {
        let fields = self.records.values().flat_map(|record| record.fields.values());
        let names = |field: &&FieldEntry| match &field.state {
            State::Declared(declaration) => declaration.terms.contains_key(&purpose),
            State::Retired(_) | State::Reserved(_) => false,
        };
        fields.filter(names).count()
    }
}

struct Markdown<'a>(&'a Registry);

impl Display for Markdown<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_markdown(f)
    }
}

struct JsonObject<'a>(&'a Registry);

impl Display for JsonObject<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.write_json(f)
    }
}

fn state(state: &State) -> &'static str {
    match state {
        State::Declared(_) => "current",
        State::Retired(_) => "retired",
        State::Reserved(_) => "reserved",
    }
}

fn unit_of(n: u16, unit: Unit) -> &'static str {
    if n == 1 { unit.label().trim_end_matches('s') } else { unit.label() }
}

fn comma(i: usize) -> &'static str {
    if i == 0 { "" } else { "," }
}

/// Text within one cell of a table, or a paragraph: no line break, no markup, no HTML. A backslash before ASCII
/// punctuation is an escape (`CommonMark` 2.4); `<` and `&` would be HTML, so they become entities.
struct Cell<'a>(&'a str);

impl Display for Cell<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, char) in self.0.char_indices() {
            match char {
                // At the start of a paragraph these begin a list, a heading or a line.
                '-' | '+' | '=' if i == 0 => write!(f, "\\{char}")?,
                '&' => f.write_str("&amp;")?,
                '<' => f.write_str("&lt;")?,
                '>' => f.write_str("&gt;")?,
                '\\' | '`' | '*' | '_' | '[' | ']' | '|' | '~' | '#' => write!(f, "\\{char}")?,
                char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => f.write_char(' ')?,
                char => f.write_char(char)?,
            }
        }
        Ok(())
    }
}

/// A JSON string (RFC 8259, 7). U+2028 and U+2029 too, so that it is also a literal of older JavaScript.
struct Json<'a>(&'a str);

impl Display for Json<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_char('"')?;
        for char in self.0.chars() {
            match char {
                '"' | '\\' => write!(f, "\\{char}")?,
                '\n' => f.write_str("\\n")?,
                char if char.is_control() || matches!(char, '\u{2028}' | '\u{2029}') => {
                    write!(f, "\\u{:04x}", u32::from(char))?;
                }
                char => f.write_char(char)?,
            }
        }
        f.write_char('"')
    }
}
