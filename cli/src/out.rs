//! What people and programs read: stdout, tables, bytes shown safely, numbers with units.

use std::io::{self, ErrorKind, Write};
use std::time::Duration;

use comfy_table::{ContentArrangement, Table, presets};
use serde_json::Value;

use crate::stop::Stop;

/// Bytes to stdout, at once.
pub(crate) fn write(bytes: &[u8]) -> Result<(), Stop> {
    let mut stdout = io::stdout().lock();
    done(stdout.write_all(bytes).and_then(|()| stdout.flush()))
}

/// One line to stdout.
pub(crate) fn line(text: impl AsRef<str>) -> Result<(), Stop> {
    write(format!("{}\n", text.as_ref()).as_bytes())
}

/// One line beside the answer, to stderr, if anyone reads it.
pub(crate) fn aside(text: &str) {
    drop(writeln!(io::stderr().lock(), "{text}"));
}

/// One JSON value on one line.
pub(crate) fn json(value: &Value) -> Result<(), Stop> {
    line(value.to_string())
}

/// What a write to stdout means for the command.
pub(crate) fn done(result: io::Result<()>) -> Result<(), Stop> {
    match result {
        Ok(()) => Ok(()),
        Err(e) if e.kind() == ErrorKind::BrokenPipe => Err(Stop::Unread),
        Err(e) => Err(Stop::io("stdout", &e)),
    }
}

/// Lines for whoever watches. A watcher that goes away does not end what is watched.
#[derive(Debug, Default)]
pub(crate) struct Watched {
    gone: bool,
}

impl Watched {
    /// One line, if anyone still reads.
    pub(crate) fn line(&mut self, text: impl AsRef<str>) {
        if !self.gone {
            self.gone = line(text).is_err();
        }
    }
}

/// A table without borders or colour: columns for people, words for `awk`.
pub(crate) fn table(head: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table
        .load_style(presets::NOTHING)
        .set_content_arrangement(ContentArrangement::Disabled)
        .set_header(head.to_vec())
        .add_rows(rows);
    for column in 0..table.column_count() {
        if let Some(column) = table.column_mut(column) {
            column.set_padding((0, 2));
        }
    }
    let mut text = table.trim_fmt();
    text.push('\n');
    text
}

/// Bytes on one line, whatever they are: text as it is, with escapes for what a terminal would obey
/// or a reader could mistake; other bytes as `\xNN`.
pub(crate) fn show(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) => text
            .chars()
            .flat_map(|c| {
                let plain = !c.is_control() && c != '\\';
                let escaped = if plain { None } else { Some(c.escape_default()) };
                plain.then_some(c).into_iter().chain(escaped.into_iter().flatten())
            })
            .collect(),
        Err(_) => bytes.escape_ascii().to_string(),
    }
}

/// Bytes as a value of their own: text that a terminal can take stays as it is, several lines too.
pub(crate) fn show_value(bytes: &[u8]) -> String {
    match std::str::from_utf8(bytes) {
        Ok(text) if !text.chars().any(|c| c.is_control() && c != '\n' && c != '\t') => {
            String::from(text)
        }
        _ => show(bytes),
    }
}

/// Puts bytes into a JSON object: as text under `name` if they are text, else in hexadecimal under
/// `name_hex`.
pub(crate) fn put_bytes(object: &mut serde_json::Map<String, Value>, name: &str, bytes: &[u8]) {
    match std::str::from_utf8(bytes) {
        Ok(text) => object.insert(String::from(name), Value::from(text)),
        Err(_) => {
            let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
            object.insert(format!("{name}_hex"), Value::from(hex))
        }
    };
}

/// A number of bytes for people.
pub(crate) fn bytes(count: u64) -> String {
    for (unit, shift) in [("GiB", 30), ("MiB", 20), ("KiB", 10)] {
        let whole = count >> shift;
        if whole > 0 {
            let tenth = ((count - (whole << shift)) * 10) >> shift;
            return format!("{whole}.{tenth} {unit}");
        }
    }
    format!("{count} B")
}

/// A span of time for people, to its two greatest units.
pub(crate) fn span(time: Duration) -> String {
    let seconds = time.as_secs();
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3_600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{}.{}s", seconds, time.subsec_millis() / 100),
        (0, 0, _) => format!("{minutes}m{:02}s", seconds % 60),
        (0, _, _) => format!("{hours}h{minutes:02}m"),
        _ => format!("{days}d{hours:02}h"),
    }
}

/// A count with its word: `1 key`, `2 keys`.
pub(crate) fn count(number: usize, word: &str) -> String {
    let plural = if number == 1 { "" } else { "s" };
    format!("{number} {word}{plural}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_that_a_terminal_obeys_gets_through() {
        assert_eq!(show(b"plain \xc3\xa9"), "plain \u{e9}");
        assert_eq!(show(b"\x1b[31mred\tnext\n"), r"\u{1b}[31mred\tnext\n");
        assert_eq!(show(b"back\\slash"), r"back\\slash");
        assert_eq!(show(b"\xff\x00a"), r"\xff\x00a");
        assert_eq!(show_value(b"two\nlines\\"), "two\nlines\\");
        assert_eq!(show_value(b"\x1b[2J"), r"\u{1b}[2J");
    }

    #[test]
    fn json_tells_text_from_bytes() {
        let mut object = serde_json::Map::new();
        put_bytes(&mut object, "key", b"k");
        put_bytes(&mut object, "value", b"\xff\x01");
        assert_eq!(Value::from(object).to_string(), r#"{"key":"k","value_hex":"ff01"}"#);
    }

    #[test]
    fn numbers_have_units() {
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(5 << 30), "5.0 GiB");
        assert_eq!(span(Duration::from_millis(1530)), "1.5s");
        assert_eq!(span(Duration::from_secs(61)), "1m01s");
        assert_eq!(span(Duration::from_secs(3_700)), "1h01m");
        assert_eq!(span(Duration::from_secs(90_000)), "1d01h");
        assert_eq!(count(1, "key"), "1 key");
        assert_eq!(count(0, "key"), "0 keys");
    }

    #[test]
    fn a_table_is_columns_of_words() {
        let text = table(
            &["NAME", "ID"],
            vec![vec!["a".into(), "m1".into()], vec!["bb".into(), "m2".into()]],
        );
        let words: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        assert_eq!(words, [["NAME", "ID"], ["a", "m1"], ["bb", "m2"]]);
    }
}
