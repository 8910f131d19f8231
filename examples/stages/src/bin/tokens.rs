//! Stage 1: a text becomes numbers, and comes back.

use pocketgpt_runtime::format::{MappedFile, WeightFile};
use pocketgpt_stages::{Error, Picture, label, model_path};

const TEXT: &str = "The little tailor laughed at Rumpelstiltskin.";

fn main() -> Result<(), Error> {
    let map = MappedFile::open(&model_path())?;
    let file = WeightFile::new(map.bytes())?;
    let tokenizer = file.tokenizer()?.ok_or("the file has no tokenizer")?;

    // Frequent words are one token, rare ones are several. The space before a word belongs to it.
    let ids = tokenizer.encode_to_vec(TEXT);
    println!("{} bytes become {} tokens:\n", TEXT.len(), ids.len());
    for &id in &ids {
        let token = tokenizer.token_bytes(id).unwrap_or_default();
        println!("{id:6}  {}", label(token));
    }

    // Nothing is lost: the bytes of the tokens, one after the other, are the text.
    let text = tokenizer.decode_to_string(&ids);
    assert_eq!(text, TEXT);
    println!("\nand back: {text}");

    let mut picture = Picture::new(660, 60);
    let colours = [[174, 214, 241], [249, 231, 159], [171, 235, 198], [245, 183, 177]];
    let mut x = 10;
    for (i, &id) in ids.iter().enumerate() {
        let token = label(tokenizer.token_bytes(id).unwrap_or_default());
        let width = 16 + 8 * token.chars().count();
        picture.rectangle(x, 8, (width, 26), colours[i % colours.len()]);
        picture.text(x + width / 2, 26, "middle", &token);
        picture.text(x + width / 2, 52, "middle", &id.to_string());
        x += width + 4;
    }
    picture.save("tokens.svg")?;
    Ok(())
}
