//! Output for terminals: text, without any character that a terminal acts on.
//!
//! Names, payloads and paths come from anywhere. The right bytes make a terminal move its cursor,
//! change its title or type an answer; text that runs backwards misleads its reader. Both are
//! printed as escapes.

use std::borrow::Cow;
use std::fmt::Write as _;
use std::io::{self, Write};

/// Form of the output: for people or for programs.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Form {
    /// Text lines, with escapes like `\x1b` and `\u{9b}`.
    Text,
    /// JSON, with escapes like `\u001b` and `\u009b`: inside a string the value stays the same.
    Json,
}

/// Returns whether a terminal acts on the character: controls, and characters that change the
/// direction or the lines of text.
fn acts(character: char) -> bool {
    character.is_control()
        || matches!(character, '\u{61c}' | '\u{200e}' | '\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
}

/// Appends a character, escaped if a terminal acts on it.
fn show(character: char, form: Form, into: &mut String) {
    if !acts(character) {
        return into.push(character);
    }
    let code = u32::from(character);
    // Writing to a string does not fail.
    let _ = match form {
        Form::Json => write!(into, "\\u{code:04x}"),
        Form::Text if character == '\n' => write!(into, "\\n"),
        Form::Text if character == '\t' => write!(into, "\\t"),
        Form::Text if character == '\r' => write!(into, "\\r"),
        Form::Text if code < 0x80 => write!(into, "\\x{code:02x}"),
        Form::Text => write!(into, "\\u{{{code:x}}}"),
    };
}

/// Returns the text on one line, with every acting character escaped.
pub(crate) fn on_one_line(text: &str) -> Cow<'_, str> {
    if !text.contains(acts) {
        return text.into();
    }
    let mut shown = String::with_capacity(text.len().saturating_add(16));
    text.chars().for_each(|character| show(character, Form::Text, &mut shown));
    shown.into()
}

/// Writer that escapes acting characters, except for newlines and tabs, and bytes that are not
/// UTF-8.
#[derive(Debug)]
pub(crate) struct Screen<W> {
    to: W,
    form: Form,
    /// First bytes of a character whose remaining bytes have not arrived yet.
    begun: Vec<u8>,
}

impl<W: Write> Screen<W> {
    /// Wraps `to`.
    pub(crate) fn new(to: W, form: Form) -> Self {
        Self { to, form, begun: Vec::new() }
    }

    fn show(&mut self, bytes: &[u8]) -> String {
        let mut shown = String::with_capacity(bytes.len());
        for chunk in bytes.utf8_chunks() {
            for character in chunk.valid().chars() {
                match character {
                    '\n' | '\t' => shown.push(character),
                    character => show(character, self.form, &mut shown),
                }
            }
            for byte in chunk.invalid() {
                let _ = write!(shown, "\\x{byte:02x}");
            }
        }
        shown
    }
}

impl<W: Write> Write for Screen<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        // The remaining bytes of an incomplete character may follow with the next write.
        let last = all.utf8_chunks().last().map_or(&[][..], |last| last.invalid());
        if std::str::from_utf8(last).is_err_and(|error| error.error_len().is_none()) {
            self.begun = all.split_off(all.len().saturating_sub(last.len()));
        }
        let shown = self.show(&all);
        self.to.write_all(shown.as_bytes())?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        let begun = std::mem::take(&mut self.begun);
        let shown = self.show(&begun);
        self.to.write_all(shown.as_bytes())?;
        self.to.flush()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(parts: &[&[u8]], form: Form) -> String {
        let mut screen = Screen::new(Vec::new(), form);
        parts.iter().for_each(|part| screen.write_all(part).expect("a vector"));
        screen.flush().expect("a vector");
        String::from_utf8(screen.to).expect("UTF-8")
    }

    #[test]
    fn nothing_acts_and_everything_else_is_as_it_was() {
        let harmless = "a\tb\nGrüße 日本 🙂\n";
        assert_eq!(shown(&[harmless.as_bytes()], Form::Text), harmless);
        let acting = "\u{1b}[31m\u{9b}2J\u{7f}\r\u{202e}\u{2028}";
        assert_eq!(
            shown(&[acting.as_bytes()], Form::Text),
            "\\x1b[31m\\u{9b}2J\\x7f\\r\\u{202e}\\u{2028}"
        );
        assert_eq!(on_one_line(acting), "\\x1b[31m\\u{9b}2J\\x7f\\r\\u{202e}\\u{2028}");
        assert_eq!(on_one_line(harmless), "a\\tb\\nGrüße 日本 🙂\\n");
        assert_eq!(shown(&["\u{9b}\u{7f}".as_bytes()], Form::Json), "\\u009b\\u007f");
        assert_eq!(shown(&[b"\xff\x9b\xe2\x80"], Form::Text), "\\xff\\x9b\\xe2\\x80");
    }

    #[test]
    fn a_character_may_come_in_parts() {
        let text = "Gr\u{fc}\u{df}e \u{202e}\u{1f642}\u{9b}!";
        let whole = shown(&[text.as_bytes()], Form::Text);
        for at in 0..text.len() {
            let (start, rest) = text.as_bytes().split_at(at);
            assert_eq!(shown(&[start, rest], Form::Text), whole, "in two at {at}");
        }
        let bytes: Vec<&[u8]> = text.as_bytes().chunks(1).collect();
        assert_eq!(shown(&bytes, Form::Text), whole);
        assert_eq!(shown(&[b"\xff", b"a\xe2", b"\x28"], Form::Text), "\\xffa\\xe2(");
    }
}
