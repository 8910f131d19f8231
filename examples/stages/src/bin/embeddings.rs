//! Stage 2: every token is a vector, and vectors of like words are alike.

use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_runtime::kernels::Kernels;
use pocketgpt_runtime::model::Gpt2;
use pocketgpt_stages::{Error, Picture, model_path};

const WORDS: [&str; 12] = [
    "king", "queen", "prince", "princess", "wolf", "fox", "lion", "bird", "one", "two", "three",
    "four",
];

fn main() -> Result<(), Error> {
    let map = MappedFile::open(&model_path())?;
    let model = Gpt2::new(WeightFile::new(map.bytes())?, Kernels::best());
    let tokenizer = model.file().tokenizer()?.ok_or("the file has no tokenizer")?;
    let n_embd = model.config().n_embd as usize;

    // A row of the matrix `wte` for each token of the vocabulary: [n_embd] numbers.
    let mut vectors = Vec::new();
    for word in WORDS {
        let ids = tokenizer.encode_to_vec(&format!(" {word}"));
        let mut vector = vec![0.0; n_embd];
        model.token_embedding(ids[0], &mut vector);
        vectors.push(vector);
    }
    println!("{n_embd} numbers for each word. \" king\" begins {:.3?}\n", &vectors[0][..4]);

    // The cosine of the angle between two vectors: 1 for the same direction, 0 for a right angle.
    let dot = |a: &[f32], b: &[f32]| -> f32 { a.iter().zip(b).map(|(a, b)| a * b).sum() };
    let cosine = |a: &[f32], b: &[f32]| dot(a, b) / (dot(a, a) * dot(b, b)).sqrt();
    let rows: Vec<Vec<f32>> =
        vectors.iter().map(|a| vectors.iter().map(|b| cosine(a, b)).collect()).collect();
    for (word, row) in WORDS.iter().zip(&rows) {
        let row: Vec<String> = row.iter().map(|cosine| format!("{cosine:5.2}")).collect();
        println!("{word:>8} {}", row.join(" "));
    }

    let mut picture = Picture::new(450, 380);
    picture.text(10, 20, "start", "cosine between words: white is 0, dark is 1");
    picture.matrix((80, 36), 28, &WORDS.map(String::from), &rows);
    picture.save("embeddings.svg")?;
    Ok(())
}
