//! The page of the demo: a built chat from a directory, or the embedded plain page.

use super::say;
use anyhow::{Context, bail};
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};

/// The plain page and its SDKs.
const PLAIN: [(&str, &str); 3] = [
    ("index.html", include_str!("../../deploy/demo/index.html")),
    ("centrifuge.js", include_str!("../../deploy/demo/centrifuge.js")),
    ("pocketbase.es.mjs", include_str!("../../deploy/demo/pocketbase.es.mjs")),
];
/// The built chat, from the root of the sources.
const CHAT: &str = "deploy/konvert/chat/dist";
const INDEX: &str = "index.html";

pub enum Page {
    Plain,
    Built(PathBuf),
}

impl Page {
    /// `site` is the directory of the user's choice.
    ///
    /// # Errors
    /// If `site` is not the directory of a page.
    pub fn choose(site: Option<&Path>, plain: bool) -> anyhow::Result<Self> {
        match site {
            _ if plain => Ok(Self::Plain),
            Some(folder) if folder.join(INDEX).is_file() => Ok(Self::Built(folder.to_owned())),
            Some(folder) => bail!(
                "--site: {} has no {INDEX}; build the chat there (npm ci && npm run build in deploy/konvert/chat), or \
                 leave the option out",
                folder.display()
            ),
            None => Ok(built_chat().map_or(Self::Plain, Self::Built)),
        }
    }

    /// Makes `public` anew, with the files of the page.
    ///
    /// # Errors
    /// If a file cannot be read or written.
    pub fn write(&self, public: &Path) -> anyhow::Result<()> {
        match fs::remove_dir_all(public) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                return Err(error).with_context(|| format!("cannot remove {}", public.display()));
            }
            _ => {}
        }
        match self {
            Self::Built(folder) => {
                say(format_args!("the page is {}", folder.display()));
                copy(folder, public)
                    .with_context(|| format!("cannot copy {} to {}", folder.display(), public.display()))
            }
            Self::Plain => {
                fs::create_dir_all(public)?;
                for (name, text) in PLAIN {
                    fs::write(public.join(name), text)?;
                }
                Ok(())
            }
        }
    }
}

/// The built chat beside the sources of this program, which lies in `target/release` of the sources.
fn built_chat() -> Option<PathBuf> {
    let program = std::env::current_exe().ok()?;
    program.ancestors().skip(2).take(3).map(|folder| folder.join(CHAT)).find(|chat| chat.join(INDEX).is_file())
}

fn copy(from: &Path, to: &Path) -> std::io::Result<()> {
    fs::create_dir_all(to)?;
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let target = to.join(entry.file_name());
        if entry.file_type()?.is_dir() {
            copy(&entry.path(), &target)?;
        } else {
            fs::copy(entry.path(), target)?;
        }
    }
    Ok(())
}
