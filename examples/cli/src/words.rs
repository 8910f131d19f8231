//! Words to look at where the user names none: single tokens of GPT-2 and of the bundled model,
//! with a space before them.

/// Words that have something in common.
pub const GROUPS: [&[&str]; 9] = [
    &["king", "queen", "prince", "princess"],
    &["man", "woman", "boy", "girl", "son", "daughter", "father", "mother", "brother", "sister"],
    &["wolf", "fox", "cat", "dog", "bird", "horse", "lion"],
    &["head", "hand", "eye", "heart"],
    &["house", "castle", "forest", "garden", "sea", "river"],
    &["gold", "silver"],
    &["one", "two", "three", "four"],
    &["said", "went", "came", "saw"],
    &["good", "bad", "old", "young"],
];
