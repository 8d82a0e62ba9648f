//! Text of others for a terminal: what would steer it, hide text or turn it round is written out, and length is
//! bounded. Pure.

use std::borrow::Cow;

/// A line of text on a terminal.
pub const LINE_MAX_CHARACTERS: usize = 160;
/// A text that was asked for as a whole.
pub const WHOLE_MAX_CHARACTERS: usize = 64 << 10;

/// Writes out control characters, and those that have no width or change the direction.
pub fn escape(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        match character {
            '\n' => escaped.push_str("\\n"),
            '\r' => escaped.push_str("\\r"),
            '\t' => escaped.push_str("\\t"),
            character if is_unseen(character) => escaped.extend(character.escape_unicode()),
            character => escaped.push(character),
        }
    }
    escaped
}

/// As `escape`, but with line ends and tabs as they are.
pub fn escape_lines(text: &str) -> Cow<'_, str> {
    let stays = |character: char| matches!(character, '\n' | '\t') || !is_unseen(character);
    if text.chars().all(stays) {
        return Cow::Borrowed(text);
    }
    let mut escaped = String::with_capacity(text.len());
    for character in text.chars() {
        if stays(character) { escaped.push(character) } else { escaped.extend(character.escape_unicode()) }
    }
    Cow::Owned(escaped)
}

/// As `escape`, and cut to so many characters of the text.
pub fn short(text: &str, max_characters: usize) -> String {
    match text.char_indices().nth(max_characters) {
        None => escape(text),
        Some((end, _)) => format!("{}…", escape(&text[..end])),
    }
}

/// Controls of C0 and C1, and characters of the categories Cf and Zl/Zp that text can hide behind.
fn is_unseen(character: char) -> bool {
    character.is_control()
        || matches!(
            character,
            '\u{ad}'
                | '\u{61c}'
                | '\u{180e}'
                | '\u{200b}'..='\u{200f}'
                | '\u{2028}'..='\u{202e}'
                | '\u{2060}'..='\u{206f}'
                | '\u{feff}'
                | '\u{fff9}'..='\u{fffb}'
                | '\u{e0000}'..='\u{e007f}'
        )
}

#[cfg(test)]
mod tests;
