//! What goes wrong says so in one line, with the right exit code.

use std::fs;
use std::path::Path;

use crate::run::{MODEL, command, run, run_with_stdin};

#[test]
fn usage_errors_are_2() {
    for args in [
        &["generate", "--no-such-flag"][..],
        &["no-such-command"],
        &[],
        &["generate", "--temperature", "0", "x"],
        &["generate", "--top-p", "1.5", "x"],
        &["generate", "--isa", "mmx", "x"],
        &["generate", "--kv", "q3", "x"],
        &["generate", "--threads", "0", "x"],
        &["generate", "--stop", "", "x"],
        &["logits"],
        &["logits", "--ids", "1", "--text", "x"],
        &["embed", "--plot", "x.jpg"],
        &["embed", "--plot", "svg", "a"],
        &["embed", "--perplexity", "3", "a"],
        &["embed", "--pool", "max", "a"],
        &["attention", "--plot", "x.gif", "a"],
        &["tokenize", "--color", "red", "a"],
        &["bench", "--baseline", "x", "--no-baseline"],
        &["interactive", "--temperature", "0"],
        &["bench", "--plot", "x.jpg"],
    ] {
        let run = run(args);
        assert_eq!(run.code, Some(2), "{args:?} {run:?}");
        assert_eq!(run.stdout, "");
    }
}

#[track_caller]
fn fails(args: &[&str], file: &Path, cause: &str) {
    let line = run(args).error();
    let file = file.display().to_string();
    assert!(line.starts_with(&format!("{file}: ")), "{line}");
    assert!(line.contains(cause), "{line}");
}

#[test]
fn files_that_are_no_models() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.pgpt");
    let file = path.to_str().unwrap();
    let generate = ["generate", "-m", file, "x"];
    fails(&generate, &path, "no such file");
    // Found out before anything is measured.
    fails(&["bench", "--baseline", file], &path, "no such file");

    let check = |bytes: &[u8], cause| {
        fs::write(&path, bytes).unwrap();
        fails(&generate, &path, cause);
        fails(&["verify", file], &path, cause);
    };
    check(b"", "empty");
    check(b"hello", "not a .pgpt file");
    check(&MODEL[..100], "cut short");
    check(&MODEL[..MODEL.len() - 1], "cut short");
    check(&[MODEL, b"x"].concat(), "its header says");
    check(b"GGUF and so on", "GGUF");
    check(b"\x10\0\0\0\0\0\0\0{\"x\": 1}", "pocketgpt-quantize convert");
    let mut newer = MODEL.to_vec();
    newer[4] = 2;
    check(&newer, "format version 2");
    let mut damaged = MODEL.to_vec();
    damaged[20] ^= 1;
    check(&damaged, "the header is damaged");

    let source = crate::run::repository("examples/model");
    fails(&["info", "-m", source.to_str().unwrap()], &source, "pocketgpt-quantize convert");
    fails(&["info", "-m", folder.path().to_str().unwrap()], folder.path(), "directory");
}

#[cfg(unix)]
#[test]
fn a_fifo_is_refused_and_not_waited_for() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("fifo");
    let made = std::process::Command::new("mkfifo").arg(&path).status().unwrap();
    assert!(made.success());
    fails(&["info", "-m", path.to_str().unwrap()], &path, "not a regular file");
}

/// A model in memory goes on when its file is shortened; a map would end the program.
#[cfg(unix)]
#[test]
fn without_a_map_a_shortened_file_does_no_harm() {
    use std::io::{Read, Write};
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.pgpt");
    fs::write(&path, MODEL).unwrap();
    let file = path.to_str().unwrap();
    let text = |args: &[&str]| {
        run(&[&["generate", "-n", "5", "--seed", "1", "-m", file, "x"], args].concat()).ok()
    };
    assert_eq!(text(&["--no-mmap"]), text(&[]));
    run(&["verify", "--no-mmap", file]).ok();

    let mut command = command(&["interactive", "--quiet", "-n", "5", "--no-mmap", "-m", file]);
    command.stdin(std::process::Stdio::piped()).stdout(std::process::Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut input = child.stdin.take().unwrap();
    input.write_all(b"once\n").unwrap();
    // The first bytes of the answer say that the model is open.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    fs::File::create(&path).unwrap();
    input.write_all(b"and then\n").unwrap();
    drop(input);
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success() && !output.stdout.is_empty(), "{output:?}");
}

#[test]
fn verify_names_the_damaged_tensor() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("damaged.pgpt");
    let mut bytes = MODEL.to_vec();
    let last = bytes.len() - 100;
    bytes[last] ^= 1;
    fs::write(&path, bytes).unwrap();
    let file = path.to_str().unwrap();
    fails(&["verify", file], &path, "tensor ln_f.bias is damaged");
    // Opening reads no tensor.
    run(&["info", "-m", file]).ok();
}

#[test]
fn stdin_must_be_text() {
    for args in [&["generate"][..], &["generate", "-"], &["tokenize"]] {
        let line = run_with_stdin(args, b"abc\xff").error();
        assert!(line.starts_with("standard input: not UTF-8, byte 3"), "{line}");
    }
}

#[test]
fn a_closed_pipe_ends_quietly() {
    for args in [
        &["generate", "-n", "300", "x"][..],
        &["generate", "--json", "x"],
        &["info"],
        &["tokenize", "a b c"],
        &["embed"],
        &["attention", "a b c"],
        &["completions", "bash"],
    ] {
        let (reader, writer) = std::io::pipe().unwrap();
        drop(reader);
        let output = command(args).stdout(writer).output().unwrap();
        assert_eq!(output.status.code(), Some(0), "{args:?}");
        assert_eq!(String::from_utf8_lossy(&output.stderr), "", "{args:?}");
    }
}

#[cfg(target_os = "linux")]
#[test]
fn a_full_disk_is_an_error() {
    let full = fs::OpenOptions::new().write(true).open("/dev/full").unwrap();
    let output = command(&["generate", "x"]).stdout(full).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let line = String::from_utf8(output.stderr).unwrap();
    assert!(line.starts_with("error: standard output: "), "{line}");
}

#[test]
fn what_does_not_fit_the_model() {
    for (args, cause) in [
        (&["generate", "--window", "513", "x"][..], "512 positions"),
        (&["generate", &"word ".repeat(600)], "512 fit"),
        (&["logits", "--ids", "4096"], "0 to 4095"),
        (&["bench", "-p", "513"], "512 fit"),
        (&["bench", "--depth", "500", "-n", "13"], "512 fit"),
        (&["bench", "--plot", "no/such/folder/x.svg"], "no such folder"),
        (&["perplexity", "--text", "no/such/file"], "no such file"),
        (&["logits", "--ids", "1", "--npy", "no/such/folder/x.npy"], "no such folder"),
        (&["embed", "--npy", "no/such/folder/x.npy", "a"], "no such folder"),
        (&["embed", "--layer", "7", "a"], "the layers 0 to 6"),
        (&["embed", "--layer", "0", &"word ".repeat(600)], "512 fit"),
        (&["embed", "a", ""], "empty"),
        (&["embed", "-"], "no text"),
        (&["embed", "--pool", "none", &"a ".repeat(2100)], "at most 2000"),
        (&["attention", "--layer", "6", "a"], "the layers 0 to 5"),
        (&["attention", "--head", "4", "a"], "the heads 0 to 3"),
        (&["attention", ""], "empty"),
        (&["attention", &"word ".repeat(600)], "512 fit"),
        (&["attention", "--npy", "/", "a"], "folder"),
    ] {
        let line = run(args).error();
        assert!(line.contains(cause), "{line}");
    }
}

#[cfg(feature = "plot")]
#[test]
fn pictures_that_cannot_be() {
    for (args, cause) in [
        (&["embed", "--plot", "no/such/folder/x.svg"][..], "no such folder"),
        (&["attention", "--plot", "no/such/folder/x.svg", "a"], "no such folder"),
        (&["embed", "--plot", "x.svg", "--projection", "tsne", "a", "b"], "needs 4 vectors"),
        (&["embed", "--plot", "x.svg", "--perplexity", "15"], "from 1 to 14.7"),
    ] {
        let line = run(args).error();
        assert!(line.contains(cause), "{line}");
    }
    assert!(!Path::new("x.svg").exists());
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_the_text_and_still_tells_the_seed() {
    use std::io::Read;
    use std::process::Stdio;

    // The slowest kernels, so that there is time.
    let args = ["generate", "--isa", "scalar", "--threads", "1", "--ignore-eos", "-n", "500", "x"];
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first text is there, so the handler is as well.
    child.stdout.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    assert!(String::from_utf8(output.stderr).unwrap().contains("| seed "));
    assert!(output.stdout.ends_with(b"\n"));
}

#[cfg(unix)]
#[test]
fn ctrl_c_ends_a_beam_search_with_the_best_text_so_far() {
    use std::io::Read;
    use std::process::Stdio;

    let args = "generate --isa scalar --threads 1 --ignore-eos -n 500 --num-beams 2 --explain x";
    let args: Vec<&str> = args.split(' ').collect();
    let mut child = command(&args).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn().unwrap();
    // The first step is explained.
    child.stderr.as_mut().unwrap().read_exact(&mut [0]).unwrap();
    let pid = child.id().to_string();
    assert!(std::process::Command::new("kill").args(["-INT", &pid]).status().unwrap().success());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(130));
    let text = String::from_utf8(output.stdout).unwrap();
    assert!(text.starts_with('x') && text.ends_with('\n') && text.len() > 3, "{text}");
}
