//! What a Markdown document tells its reader to do, so that a test can do it.
//!
//! The first words behind the fence of a block say what it is:
//!
//! | fence | meaning |
//! |---|---|
//! | `console` | commands after `$ `, each with all that it writes; they run one after the other, and succeed |
//! | `console fails` | the same, but each ends with another exit code than 0 |
//! | `console NAME` | the terminal NAME: a command that goes on while others run, or what more it shows |
//! | `sh` | commands that a test does not run |
//! | `text` | nothing to do |
//! | any other, with a name of a file | the content of that file |
//!
//! In the terminal NAME, `^C` and `^\Quit` are keys. Anywhere `…` stands for any characters, and alone in a line for any lines. A comment
//! `<!-- browser ADDRESS MESSAGE -->` opens the page, which is to show MESSAGE, and presses its button after that.

/// One thing to do, or to see.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Write a file of this name and content; comments are left out.
    Write(String, String),
    /// Run a command to its end.
    Run {
        /// The command, for a shell.
        command: String,
        /// The lines it writes.
        output: Vec<String>,
        /// Whether its exit code is another than 0.
        fails: bool,
    },
    /// Start a command in the terminal named first.
    Start(String, String),
    /// See this line in the terminal named first.
    See(String, String),
    /// Press a key in the terminal named first.
    Press(String, Key),
    /// Open a page, which is to show this message, and press its button then.
    Browse(String, String),
    /// A command that no test runs.
    Skip(String),
}

/// A key that ends a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Key {
    /// Ctrl-C, on which programs end properly.
    Interrupt,
    /// Ctrl-\, on which they are gone.
    Quit,
}

/// All steps of a document, in order; an error names the line.
pub fn steps(document: &str) -> Result<Vec<Step>, String> {
    let mut steps = Vec::new();
    let mut lines = document.lines().enumerate();
    while let Some((number, line)) = lines.next() {
        let fail = |what: &str| Err(format!("line {}: {what}: {line}", number + 1));
        if let Some(comment) = line.trim().strip_prefix("<!-- browser ") {
            match comment.strip_suffix(" -->").and_then(|words| words.split_once(' ')) {
                Some((address, message)) => steps.push(Step::Browse(address.into(), message.into())),
                None => return fail("no address and message"),
            }
            continue;
        }
        let Some(fence) = line.strip_prefix("```") else {
            if line.trim_start().starts_with("```") {
                return fail("a fence that is indented");
            }
            continue;
        };
        let mut block = Vec::new();
        loop {
            match lines.next() {
                Some((_, "```")) => break,
                Some((_, line)) => block.push(line),
                None => return fail("a block without an end"),
            }
        }
        match (fence.split_once(' ').unwrap_or((fence, "")), block) {
            (("text", ""), _) => {}
            (("sh", ""), block) => steps.extend(commands(&block).into_iter().map(Step::Skip)),
            (("console", "" | "fails"), block) => {
                let Some(mut runs) = runs(&block, fence.ends_with(" fails")) else {
                    return fail("a block that does not begin with a command");
                };
                steps.append(&mut runs);
            }
            (("console", name), block) => steps.extend(block.iter().map(|line| terminal(name, line))),
            ((_, file), block) if !file.is_empty() => steps.push(Step::Write(file.into(), content(&block))),
            _ => return fail("a block of a kind that no test knows"),
        }
    }
    Ok(steps)
}

/// Whether a line is what is expected of it, where `…` stands for anything.
pub fn matches(expected: &str, line: &str) -> bool {
    let Some((first, rest)) = expected.split_once('…') else { return expected == line };
    let Some(mut line) = line.strip_prefix(first) else { return false };
    let mut parts: Vec<&str> = rest.split('…').collect();
    let last = parts.pop().unwrap_or_default();
    for part in parts {
        match line.find(part) {
            Some(at) => line = &line[at + part.len()..],
            None => return false,
        }
    }
    line.ends_with(last)
}

/// Whether these are the lines expected, where the line `…` stands for any.
pub fn matches_all(expected: &[String], lines: &[&str]) -> bool {
    match (expected.split_first(), lines.split_first()) {
        (None, None) => true,
        (Some((any, expected)), _) if any == "…" => {
            (0..=lines.len()).any(|from| matches_all(expected, &lines[from..]))
        }
        (Some((first, expected)), Some((line, lines))) => {
            matches(first, line) && matches_all(expected, lines)
        }
        _ => false,
    }
}

/// The commands of a block for a shell, without comments.
fn commands(block: &[&str]) -> Vec<String> {
    let lines = block.iter().map(|line| uncommented(line)).filter(|line| !line.is_empty());
    lines.map(str::to_owned).collect()
}

/// What stands before a comment. No `#` of ours follows a space otherwise.
fn uncommented(line: &str) -> &str {
    if line.starts_with('#') {
        return "";
    }
    line.split_once(" #").map_or(line, |(line, _)| line).trim_end()
}

fn content(block: &[&str]) -> String {
    block.iter().map(|line| format!("{}\n", uncommented(line))).collect()
}

/// Commands to run to their end; none if the block does not begin with one.
fn runs(block: &[&str], fails: bool) -> Option<Vec<Step>> {
    let mut steps = Vec::new();
    let mut lines = block.iter();
    while let Some(line) = lines.next() {
        if let Some(first) = line.strip_prefix("$ ") {
            let mut command = first.to_owned();
            while command.ends_with('\\') {
                command.push('\n');
                command.push_str(lines.next()?);
            }
            steps.push(Step::Run { command, output: Vec::new(), fails });
        } else {
            let Some(Step::Run { output, .. }) = steps.last_mut() else { return None };
            output.push((*line).to_owned());
        }
    }
    Some(steps)
}

fn terminal(name: &str, line: &str) -> Step {
    let name = name.to_owned();
    match line {
        "^C" => Step::Press(name, Key::Interrupt),
        "^\\Quit" => Step::Press(name, Key::Quit),
        _ => match line.strip_prefix("$ ") {
            Some(command) => Step::Start(name, command.into()),
            None => Step::See(name, line.into()),
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_become_steps() {
        let document = "Text.\n```console sub\n$ sub -t a\n```\n```console\n$ pub \\\n -t a\nsent\n$ true\n```\n\
            ```console sub\nseen\n^C\n```\n```conf x.conf\na b  # c\n# d\n```\n```sh\n# why\nmake\n```\n<!-- browser http://x Hello you -->\n";
        let run = |command: &str, output: &[&str]| Step::Run {
            command: command.into(),
            output: output.iter().map(|&line| line.to_owned()).collect(),
            fails: false,
        };
        let expected = [
            Step::Start("sub".into(), "sub -t a".into()),
            run("pub \\\n -t a", &["sent"]),
            run("true", &[]),
            Step::See("sub".into(), "seen".into()),
            Step::Press("sub".into(), Key::Interrupt),
            Step::Write("x.conf".into(), "a b\n\n".into()),
            Step::Skip("make".into()),
            Step::Browse("http://x".into(), "Hello you".into()),
        ];
        assert_eq!(steps(document).unwrap(), expected);
    }

    #[test]
    fn what_no_test_knows_is_an_error() {
        for document in
            ["```\n$ x\n```", "```bash\nx\n```", "```console\nx\n```", "```sh\nx", " ```sh\nx\n```"]
        {
            assert!(steps(document).is_err(), "{document}");
        }
    }

    #[test]
    fn an_ellipsis_stands_for_anything() {
        for (expected, line, same) in [
            ("a", "a", true),
            ("a", "ab", false),
            ("…b", "ab", true),
            ("a…", "b", false),
            ("a…c…e", "abcde", true),
            ("a…c…e", "abde", false),
        ] {
            assert_eq!(matches(expected, line), same, "{expected} {line}");
        }
        let expected: Vec<String> = ["…", "b", "…"].map(str::to_owned).into();
        assert!(matches_all(&expected, &["a", "b"]));
        assert!(!matches_all(&expected, &["a", "c"]));
    }
}
