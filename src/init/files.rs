//! The files of PocketBase's side, embedded in the binary.

use clap::ValueEnum;
use clap::builder::PossibleValue;

/// A file below a PocketBase directory.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Embedded {
    /// Relative to the directory that holds `pb_data`.
    pub path: &'static str,
    pub text: &'static str,
}

macro_rules! files {
    ($folder:literal: $($path:literal)+) => {
        &[$(Embedded { path: $path, text: include_str!(concat!("../../deploy/", $folder, "/", $path)) }),+]
    };
}

/// The hooks, the outbox's migration and a commented config without channels.
const BLANK: &[Embedded] = files!("pocketbase":
    "pb_hooks/gateway.config.js"
    "pb_hooks/gateway.pb.js"
    "pb_hooks/gateway/access.js"
    "pb_hooks/gateway/address.js"
    "pb_hooks/gateway/after.js"
    "pb_hooks/gateway/channels.js"
    "pb_hooks/gateway/config.js"
    "pb_hooks/gateway/covers.js"
    "pb_hooks/gateway/delivery.js"
    "pb_hooks/gateway/dependencies.js"
    "pb_hooks/gateway/dependents.js"
    "pb_hooks/gateway/export.js"
    "pb_hooks/gateway/fields.js"
    "pb_hooks/gateway/filter.js"
    "pb_hooks/gateway/listening.js"
    "pb_hooks/gateway/names.js"
    "pb_hooks/gateway/nesting.js"
    "pb_hooks/gateway/notice.js"
    "pb_hooks/gateway/outbox.js"
    "pb_hooks/gateway/parents.js"
    "pb_hooks/gateway/plan.js"
    "pb_hooks/gateway/relations.js"
    "pb_hooks/gateway/routes.js"
    "pb_hooks/gateway/rows.js"
    "pb_hooks/gateway/rule.js"
    "pb_hooks/gateway/schema.js"
    "pb_hooks/gateway/schema_check.js"
    "pb_hooks/gateway/secrets.js"
    "pb_hooks/gateway/server.js"
    "pb_hooks/gateway/sharing.js"
    "pb_hooks/gateway/sight.js"
    "pb_hooks/gateway/signature.js"
    "pb_hooks/gateway/startup.js"
    "pb_hooks/gateway/transaction.js"
    "pb_hooks/gateway/turns.js"
    "pb_hooks/gateway/updates.js"
    "pb_hooks/gateway/users.js"
    "pb_hooks/gateway/version.js"
    "pb_migrations/1795219200_gateway_outbox.js"
);

const CHAT: &[Embedded] = files!("konvert/pocketbase":
    "pb_hooks/gateway.config.js"
    "pb_hooks/import.pb.js"
    "pb_hooks/konvert.pb.js"
    "pb_hooks/konvert/achievement_catalogue.js"
    "pb_hooks/konvert/achievements.js"
    "pb_hooks/konvert/call.js"
    "pb_hooks/konvert/direct.js"
    "pb_hooks/konvert/friends.js"
    "pb_hooks/konvert/import.js"
    "pb_hooks/konvert/import_bulk.js"
    "pb_hooks/konvert/import_file.js"
    "pb_hooks/konvert/import_login.js"
    "pb_hooks/konvert/import_records.js"
    "pb_hooks/konvert/keys.js"
    "pb_hooks/konvert/messages.js"
    "pb_hooks/konvert/notifications.js"
    "pb_hooks/konvert/polls.js"
    "pb_hooks/konvert/rooms.js"
    "pb_hooks/konvert/site.js"
    "pb_hooks/konvert/summary.js"
    "pb_hooks/konvert/users.js"
    "pb_hooks/push.pb.js"
    "pb_hooks/site.pb.js"
    "pb_migrations/1795219260_konvert_schema.js"
    "pb_migrations/1796083260_konvert_chat.js"
    "pb_migrations/1796169660_konvert_import.js"
    "pb_migrations/1796256060_konvert_upkeep.js"
    "pb_migrations/1796342460_konvert_files.js"
);

const KANBAN: &[Embedded] = files!("kanban/pocketbase":
    "pb_hooks/gateway.config.js"
    "pb_hooks/kanban.pb.js"
    "pb_migrations/1795219260_kanban_schema.js"
);

/// The application that a PocketBase directory is set up for.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum App {
    /// No collections: for an application that exists.
    #[default]
    Blank,
    Chat,
    Kanban,
}

impl App {
    pub fn name(self) -> &'static str {
        match self {
            App::Blank => "blank",
            App::Chat => "chat",
            App::Kanban => "kanban",
        }
    }

    pub fn named(name: &str) -> Option<Self> {
        Self::value_variants().iter().copied().find(|app| app.name() == name)
    }

    /// All files of the application; its own files replace files of the same path that every application has.
    pub fn files(self) -> Vec<Embedded> {
        let own: &[Embedded] = match self {
            App::Blank => &[],
            App::Chat => CHAT,
            App::Kanban => KANBAN,
        };
        let is_replaced = |file: &&Embedded| own.iter().any(|other| other.path == file.path);
        BLANK.iter().filter(|file| !is_replaced(file)).chain(own).copied().collect()
    }
}

impl ValueEnum for App {
    fn value_variants<'a>() -> &'a [Self] {
        &[App::Kanban, App::Chat, App::Blank]
    }

    fn to_possible_value(&self) -> Option<PossibleValue> {
        Some(PossibleValue::new(self.name()).help(match self {
            App::Kanban => "A small team board: workspaces, boards, cards, comments",
            App::Chat => "A chat: rooms, messages, reactions, friends",
            App::Blank => "No collections, and a commented config: for an application that exists",
        }))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn paths_below(folder: &Path, base: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(folder).unwrap() {
            let path = entry.unwrap().path();
            if path.is_dir() {
                paths_below(&path, base, found);
            } else {
                found.push(path.strip_prefix(base).unwrap().to_str().unwrap().to_owned());
            }
        }
    }

    #[test]
    fn every_file_of_deploy_is_embedded() {
        for (folder, files) in [("pocketbase", BLANK), ("konvert/pocketbase", CHAT), ("kanban/pocketbase", KANBAN)] {
            let base = Path::new(env!("CARGO_MANIFEST_DIR")).join("deploy").join(folder);
            let mut found = Vec::new();
            for part in ["pb_hooks", "pb_migrations"] {
                paths_below(&base.join(part), &base, &mut found);
            }
            found.sort();
            let embedded: Vec<&str> = files.iter().map(|file| file.path).collect();
            assert_eq!(embedded, found, "{folder}");
        }
    }

    #[test]
    fn the_config_of_an_application_replaces_the_blank_one() {
        let chat = App::Chat.files();
        let configs: Vec<&Embedded> = chat.iter().filter(|file| file.path == "pb_hooks/gateway.config.js").collect();
        assert_eq!(configs, [&CHAT[0]]);
        assert_eq!(chat.len(), BLANK.len() + CHAT.len() - 1);
        assert!(App::value_variants().iter().all(|app| App::named(app.name()) == Some(*app)));
    }
}
