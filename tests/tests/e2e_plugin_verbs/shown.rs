//! What was shown, without what is different each time: addresses, names of namespaces, ages, sizes, digests, and the width of columns,
//! which follows from those.

use super::support::{Scene, coral::Ran};

/// Units of sizes.
const UNITS: [&str; 5] = ["B", "kB", "MB", "GB", "TB"];

/// What was shown on both streams.
pub(crate) fn both(scene: &Scene, ran: &Ran) -> String {
    let mut text = ran.stdout.clone();
    for line in ran.stderr.lines() {
        text.push_str("! ");
        text.push_str(line);
        text.push('\n');
    }
    steady(scene, &text)
}

/// The same, but for names, as it is.
pub(crate) fn verbatim(scene: &Scene, ran: &Ran) -> String {
    named(scene, &format!("{}{}", ran.stdout, ran.stderr))
}

/// The text with other names for the namespace and the registry.
pub(crate) fn named(scene: &Scene, text: &str) -> String {
    let text = text.replace(scene.namespace.name(), "shop");
    text.replace(&scene.cluster.registry(), "registry")
}

/// The text with words for what is different each time.
pub(crate) fn steady(scene: &Scene, text: &str) -> String {
    let text = named(scene, text);
    let lines: Vec<String> = text.lines().map(line).collect();
    lines.join("\n")
}

fn line(line: &str) -> String {
    let indentation = &line[..line.len() - line.trim_start().len()];
    let mut words: Vec<String> = Vec::new();
    for part in line.split_whitespace() {
        let number = words.last_mut().filter(|last| last.parse::<f64>().is_ok());
        match number {
            // `12.3 kB`
            Some(number) if UNITS.contains(&part) => "SIZE".clone_into(number),
            // `1 attempt, the next in 2s`: on a busy machine there are more before anybody looks, and the next may be due.
            Some(number) if part.starts_with("attempt") => {
                "SOME attempts, the next SOME time".clone_into(number);
                break;
            }
            _ => words.push(word(part)),
        }
    }
    format!("{indentation}{}", words.join(" "))
}

fn word(word: &str) -> String {
    let trimmed = word.trim_matches(|c: char| "(),;:\"'`".contains(c));
    let instead = if is_age(trimmed) {
        "AGE"
    } else if is_hex(trimmed, 12) || is_hex(trimmed, 64) {
        "DIGEST"
    } else {
        return hashes(word);
    };
    word.replacen(trimmed, instead, 1)
}

/// `90s`, `1m30s`, `2.5s`, `350ms`
fn is_age(word: &str) -> bool {
    let units = ["ms", "s", "m", "h", "d"];
    word.starts_with(|c: char| c.is_ascii_digit())
        && units.iter().any(|unit| word.ends_with(unit))
        && word.chars().all(|c| c.is_ascii_digit() || ".smhd".contains(c))
}

fn is_hex(word: &str, digits: usize) -> bool {
    word.len() == digits && word.chars().all(|c| c.is_ascii_hexdigit()) && word.contains(|c: char| c.is_ascii_digit())
}

/// Digests and the hashes of labels within a word.
fn hashes(word: &str) -> String {
    let mut text = String::new();
    let mut run = String::new();
    for character in word.chars().chain(['\0']) {
        if character.is_ascii_hexdigit() && !character.is_ascii_uppercase() {
            run.push(character);
            continue;
        }
        if matches!(run.len(), 32 | 64) {
            "HASH".clone_into(&mut run);
        }
        text.push_str(&run);
        run.clear();
        text.push(character);
    }
    text.pop();
    text
}

#[test]
fn only_what_changes_is_left_out() {
    for (text, expected) in [
        ("web       2   12s", "web 2 AGE"),
        ("  hint: in 1m30s, (2.5s)", "  hint: in AGE, (AGE)"),
        ("5.2 kB done", "SIZE done"),
        ("  3 attempts, the next in 2s", "  SOME attempts, the next SOME time"),
        ("123456789abc", "DIGEST"),
        (
            "image.stvz.io/0123456789abcdef0123456789abcdef=available",
            "image.stvz.io/HASH=available",
        ),
        ("nginx:1.29 failed NotFound", "nginx:1.29 failed NotFound"),
    ] {
        assert_eq!(line(text), expected);
    }
}
