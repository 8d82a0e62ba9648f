//! Runs the commands of the documentation. A block fenced as `sh run` must succeed, one fenced as `sh run fails` must
//! not; a `text` block right after it lists lines that must occur in the output, in this order, `…` standing for
//! anything. The blocks of a file run one after the other in one scratch folder, with the built `sandbar` on the path.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use anyhow::{Context, Result, bail, ensure};

const BLOCK_SECONDS_MAX: u32 = 600;

/// A runnable block of a page.
#[derive(Debug, PartialEq, Eq)]
struct Block {
    /// Line of the opening fence, counted from 1.
    line: usize,
    script: String,
    must_fail: bool,
    expected: Vec<String>,
}

/// Runs the blocks of the given pages, or of README.md and everything below docs/.
pub fn run(root: &Path, pages: &[String]) -> Result<bool> {
    let pages = if pages.is_empty() { all_pages(root)? } else { pages.iter().map(|page| root.join(page)).collect() };
    let target = std::env::var_os("CARGO_TARGET_DIR").map_or_else(|| root.join("target"), PathBuf::from);
    let (mut passed, mut failed) = (0, 0);
    for page in pages {
        let text = fs::read_to_string(&page).with_context(|| format!("cannot read {}", page.display()))?;
        let name = page.strip_prefix(root).unwrap_or(&page).display().to_string();
        let blocks = blocks(&text).with_context(|| name.clone())?;
        if blocks.is_empty() {
            continue;
        }
        let place = Place::new(root, &target, &name)?;
        for block in blocks {
            let started = Instant::now();
            match place.run(&block) {
                Ok(()) => {
                    println!("{name}:{}: ok, {:.1} s", block.line, started.elapsed().as_secs_f64());
                    passed += 1;
                }
                Err(error) => {
                    println!("{name}:{}: failed: {error:#}", block.line);
                    failed += 1;
                    break;
                }
            }
        }
    }
    println!("commands: {passed} passed, {failed} failed");
    ensure!(passed + failed > 0, "no page has a block that is marked `sh run`");
    Ok(failed == 0)
}

/// README.md and every page below docs/, in order of name.
fn all_pages(root: &Path) -> Result<Vec<PathBuf>> {
    let mut pages = vec![root.join("README.md")];
    let mut folders = vec![root.join("docs")];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(&folder).with_context(|| format!("cannot list {}", folder.display()))? {
            let path = entry?.path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|extension| extension == "md") {
                pages.push(path);
            }
        }
    }
    pages.sort();
    Ok(pages)
}

/// The scratch folder of one page.
struct Place {
    root: PathBuf,
    target: PathBuf,
    scratch: PathBuf,
}

impl Place {
    fn new(root: &Path, target: &Path, page: &str) -> Result<Self> {
        let scratch = target.join("doc-commands").join(page.replace(['/', '.'], "-"));
        if scratch.exists() {
            fs::remove_dir_all(&scratch).with_context(|| format!("cannot empty {}", scratch.display()))?;
        }
        fs::create_dir_all(&scratch).with_context(|| format!("cannot create {}", scratch.display()))?;
        Ok(Self { root: root.to_path_buf(), target: target.to_path_buf(), scratch })
    }

    /// Runs one block where the one before it ended. What it starts in the background ends with it.
    fn run(&self, block: &Block) -> Result<()> {
        let ended_in = self.scratch.join(".ended-in");
        let script = format!(
            "set -euo pipefail\nroot=$SANDBAR_ROOT\ncd \"$(cat .ended-in 2>/dev/null || pwd)\"\n{}\npwd >\"$ENDED_IN\"\n",
            block.script
        );
        let path = std::env::join_paths(
            std::iter::once(self.target.join("release"))
                .chain(std::env::split_paths(&std::env::var_os("PATH").unwrap_or_default())),
        )?;
        let output = Command::new("timeout")
            .arg(BLOCK_SECONDS_MAX.to_string())
            .args(["bash", "-c", &format!("exec 2>&1\n{script}")])
            .current_dir(&self.scratch)
            .env("PATH", path)
            .env("ENDED_IN", &ended_in)
            .env("SANDBAR_ROOT", &self.root)
            // What the pages compile is kept from run to run, though their folders are new each time.
            .env("CARGO_TARGET_DIR", self.target.join("doc-commands/target"))
            .env("NO_COLOR", "1")
            .stdin(std::process::Stdio::null())
            .output()
            .context("cannot run timeout and bash")?;
        let text = String::from_utf8_lossy(&output.stdout);
        if output.status.success() == block.must_fail {
            bail!("{}\n{}\nprinted:\n{text}", output.status, block.script);
        }
        if let Some(missing) = first_missing(&block.expected, &text) {
            bail!("{}\ndid not print `{missing}`; printed:\n{text}", block.script);
        }
        Ok(())
    }
}

/// The runnable blocks of a page.
fn blocks(text: &str) -> Result<Vec<Block>> {
    let mut found: Vec<Block> = Vec::new();
    let mut lines = text.lines().enumerate();
    let mut output_may_follow = false;
    while let Some((index, line)) = lines.next() {
        let Some(fence) = line.strip_prefix("```") else {
            output_may_follow &= line.trim().is_empty();
            continue;
        };
        let mut inside = Vec::new();
        loop {
            let (_, line) = lines.next().with_context(|| format!("line {}: the block is never closed", index + 1))?;
            if line.starts_with("```") {
                break;
            }
            inside.push(line);
        }
        match fence.trim() {
            "sh run" | "sh run fails" => {
                let must_fail = fence.trim().ends_with("fails");
                found.push(Block { line: index + 1, script: inside.join("\n"), must_fail, expected: Vec::new() });
                output_may_follow = true;
                continue;
            }
            "text" if output_may_follow => {
                let block = found.last_mut().context("a text block follows no command")?;
                block.expected = inside.into_iter().map(str::to_owned).collect();
            }
            fence if fence.starts_with("sh run") => {
                bail!("line {}: `{fence}` is not `sh run` or `sh run fails`", index + 1)
            }
            _ => {}
        }
        output_may_follow = false;
    }
    Ok(found)
}

/// The first expected line that the output does not have after the ones before it. `…` within a line stands for
/// anything, and the rest must occur in one line of the output.
fn first_missing<'a>(expected: &'a [String], output: &str) -> Option<&'a str> {
    let mut lines = output.lines();
    for wanted in expected {
        let parts: Vec<&str> = wanted.split('…').map(str::trim).filter(|part| !part.is_empty()).collect();
        if !parts.is_empty() && !lines.any(|line| contains_in_order(line, &parts)) {
            return Some(wanted);
        }
    }
    None
}

fn contains_in_order(line: &str, parts: &[&str]) -> bool {
    let mut rest = line;
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    true
}

#[cfg(test)]
mod tests;
