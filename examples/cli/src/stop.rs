//! Stop texts, found however the tokens cut them.

/// Looks for stop texts in a text that comes in pieces, holding back what could be the beginning
/// of one.
#[derive(Debug)]
pub struct StopFinder<'a> {
    stops: &'a [String],
    held: String,
}

impl<'a> StopFinder<'a> {
    /// `stops`: texts to look for, none of them empty.
    pub fn new(stops: &'a [String]) -> Self {
        Self { stops, held: String::new() }
    }

    /// Adds a piece and hands what is certainly before a stop text to `sink`. True once a stop
    /// text is complete; what follows it is dropped.
    ///
    /// It is the stop text that is complete first, and of those that end together the longest:
    /// how the text is cut into pieces makes no difference.
    pub fn push(&mut self, piece: &str, mut sink: impl FnMut(&str)) -> bool {
        for c in piece.chars() {
            self.held.push(c);
            let complete = self.stops.iter().filter(|stop| self.held.ends_with(&***stop));
            if let Some(len) = complete.map(String::len).max() {
                emit(&self.held[..self.held.len() - len], &mut sink);
                self.held.clear();
                return true;
            }
        }
        let free = self.held.len() - self.possible_beginning();
        emit(&self.held[..free], &mut sink);
        self.held.drain(..free);
        false
    }

    /// The text has ended, so what was held back is no stop text.
    pub fn finish(&mut self, sink: impl FnMut(&str)) {
        emit(&self.held, sink);
        self.held.clear();
    }

    /// Length of the longest end of the held text that a stop text begins with.
    fn possible_beginning(&self) -> usize {
        let longest = |stop: &String| {
            let cuts = stop.char_indices().map(|(at, _)| at).rev();
            cuts.into_iter().find(|&at| self.held.ends_with(&stop[..at])).unwrap_or(0)
        };
        self.stops.iter().map(longest).max().unwrap_or(0)
    }
}

fn emit(text: &str, mut sink: impl FnMut(&str)) {
    if !text.is_empty() {
        sink(text);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The text before the stop, and whether there was one, with pieces of `len` characters.
    fn run(text: &str, stops: &[&str], len: usize) -> (String, bool) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.into()).collect();
        let mut finder = StopFinder::new(&stops);
        let mut out = String::new();
        let chars: Vec<char> = text.chars().collect();
        for piece in chars.chunks(len) {
            if finder.push(&piece.iter().collect::<String>(), |s| out.push_str(s)) {
                return (out, true);
            }
        }
        finder.finish(|s| out.push_str(s));
        (out, false)
    }

    #[test]
    fn pieces_make_no_difference() {
        for len in 1..12 {
            let found = |text, stops: &[&str]| run(text, stops, len);
            assert_eq!(found("one two three", &["two"]), ("one ".into(), true));
            assert_eq!(found("one tw", &["two"]), ("one tw".into(), false));
            assert_eq!(found("aaab", &["aab"]), ("a".into(), true));
            assert_eq!(found("abcd", &["bc", "abcx"]), ("a".into(), true));
            assert_eq!(found("abcd", &["c", "bc"]), ("a".into(), true));
            assert_eq!(found("grüße, grün", &["ün"]), ("grüße, gr".into(), true));
            assert_eq!(found("nothing", &[]), ("nothing".into(), false));
        }
    }

    #[test]
    fn holds_back_no_more_than_it_must() {
        let stops = ["\n\nThe".to_owned()];
        let mut finder = StopFinder::new(&stops);
        let mut out = String::new();
        assert!(!finder.push("end.\n", |s| out.push_str(s)));
        assert_eq!(out, "end.");
        assert!(!finder.push("\nA", |s| out.push_str(s)));
        assert_eq!(out, "end.\n\nA");
    }
}
