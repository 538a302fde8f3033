//! Tests of [`init`](super::init) in temporary directories.

use super::*;

const HOOK: &str = "pb_hooks/gateway/rows.js";

fn edit(folder: &Path, path: &str, change: impl Fn(&str) -> String) {
    let place = folder.join(path);
    let text = fs::read_to_string(&place).unwrap();
    fs::write(place, change(&text)).unwrap();
}

/// As if version 0.0.9 had written `text` as the file `path`.
fn written_by_an_older_version(folder: &Path, path: &str, text: &str) {
    write(&folder.join(path), text).unwrap();
    edit(folder, RECORD, |record| {
        let mut record: WrittenFiles = serde_json::from_str(record).unwrap();
        record.version = "0.0.9".to_owned();
        record.files.insert(path.to_owned(), hash(text));
        serde_json::to_string(&record).unwrap()
    });
}

#[test]
fn a_new_directory_gets_all_files_and_a_second_run_changes_none() {
    let folder = tempfile::tempdir().unwrap();
    let place = folder.path().join("app");
    let first = init(&place, Some(App::Chat), false).unwrap();
    assert_eq!((first.app, first.kept), (App::Chat, 0));
    assert!(first.text.contains("  wrote        pb_hooks/gateway/ (36 files)\n"), "{}", first.text);
    assert!(first.text.contains("  wrote        pb_migrations/1795219260_konvert_schema.js\n"), "{}", first.text);
    for file in App::Chat.files() {
        assert_eq!(fs::read_to_string(place.join(file.path)).unwrap(), file.text, "{}", file.path);
    }
    assert!(first.is_first && first.text.starts_with("  note         there is no pb_data in "), "{}", first.text);
    let second = init(&place, None, false).unwrap();
    assert!(!second.is_first);
    assert_eq!(second.app, App::Chat, "the application is remembered");
    assert_eq!(second.text, format!("  unchanged    {} files\n", App::Chat.files().len()));
    let error = init(&place, Some(App::Kanban), false).unwrap_err();
    assert!(error.to_string().contains("set up for the application \"chat\""), "{error}");
}

#[test]
fn an_edited_config_is_kept_silently() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), None, false).unwrap();
    edit(folder.path(), CONFIG, |text| text.replace("guests: false", "guests: true"));
    let report = init(folder.path(), None, false).unwrap();
    assert!(report.text.starts_with("  kept         pb_hooks/gateway.config.js (your settings)\n"), "{}", report.text);
    assert_eq!(report.kept, 0);
    init(folder.path(), None, true).unwrap();
    assert!(fs::read_to_string(folder.path().join(CONFIG)).unwrap().contains("guests: true"), "not even with force");
}

#[test]
fn an_upgrade_replaces_untouched_files_and_shows_what_differs_in_edited_ones() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), None, false).unwrap();
    written_by_an_older_version(folder.path(), HOOK, "// the old hook\n");
    written_by_an_older_version(folder.path(), "pb_hooks/gateway/gone.js", "// no longer needed\n");
    edit(folder.path(), "pb_hooks/gateway/turns.js", |text| format!("// mine\n{text}"));

    let report = init(folder.path(), None, false).unwrap();
    for line in [
        "  updated      pb_hooks/gateway/rows.js\n",
        "  removed      pb_hooks/gateway/gone.js\n",
        "  kept         pb_hooks/gateway/turns.js (edited; differences to version ",
        "      -// mine\n",
    ] {
        assert!(report.text.contains(line), "{line:?} is missing in\n{}", report.text);
    }
    assert_eq!(report.kept, 1);
    assert!(!folder.path().join("pb_hooks/gateway/gone.js").exists());
    assert_eq!(init(folder.path(), None, false).unwrap().kept, 1, "still edited at the next run");

    let report = init(folder.path(), None, true).unwrap();
    assert!(
        report.text.contains("  overwrote    pb_hooks/gateway/turns.js (a copy of your file ends in .bak)\n"),
        "{}",
        report.text
    );
    assert_eq!(report.kept, 0);
    let backup = fs::read_to_string(folder.path().join("pb_hooks/gateway/turns.js.bak")).unwrap();
    assert!(backup.starts_with("// mine\n"));
    edit(folder.path(), "pb_hooks/gateway/turns.js", |text| format!("// mine again\n{text}"));
    init(folder.path(), None, true).unwrap();
    let (first, second) = ("pb_hooks/gateway/turns.js.bak", "pb_hooks/gateway/turns.js.1.bak");
    assert_eq!(fs::read_to_string(folder.path().join(first)).unwrap(), backup, "no copy is replaced");
    assert!(fs::read_to_string(folder.path().join(second)).unwrap().starts_with("// mine again\n"));
}

#[test]
fn an_example_application_does_not_change_the_rules_of_another() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join("pb_data/data.db"), "").unwrap();
    let error = init(folder.path(), Some(App::Chat), false).unwrap_err();
    assert!(error.to_string().contains("leave --app out"), "{error}");
    init(folder.path(), None, false).unwrap();
}

#[test]
fn a_record_cannot_remove_files_elsewhere() {
    let folder = tempfile::tempdir().unwrap();
    let app = folder.path().join("app");
    init(&app, None, false).unwrap();
    let victim = folder.path().join("victim.js");
    written_by_an_older_version(&app, "../victim.js", "// precious\n");
    written_by_an_older_version(&app, victim.to_str().unwrap(), "// precious\n");
    init(&app, None, true).unwrap();
    assert!(victim.exists());
}

#[test]
fn files_without_a_record_count_as_edited_where_they_differ() {
    let folder = tempfile::tempdir().unwrap();
    write(&folder.path().join(HOOK), "// from somewhere\n").unwrap();
    let report = init(folder.path(), None, false).unwrap();
    assert_eq!(report.kept, 1);
    assert_eq!(fs::read_to_string(folder.path().join(HOOK)).unwrap(), "// from somewhere\n");
    assert_eq!(init(folder.path(), None, false).unwrap().kept, 1);
}

#[test]
fn other_line_ends_are_no_edit_and_other_bytes_are() {
    let folder = tempfile::tempdir().unwrap();
    init(folder.path(), None, false).unwrap();
    edit(folder.path(), HOOK, |text| text.replace('\n', "\r\n"));
    assert_eq!(init(folder.path(), None, false).unwrap().kept, 0);
    fs::write(folder.path().join(HOOK), b"// \xff\r\n").unwrap();
    assert_eq!(init(folder.path(), None, false).unwrap().kept, 1);
    init(folder.path(), None, true).unwrap();
    let copy = fs::read(folder.path().join(format!("{HOOK}.bak"))).unwrap();
    assert_eq!(copy, b"// \xff\r\n", "the copy is byte for byte");
}

#[test]
fn symbolic_links_are_kept_unless_they_lead_nowhere() {
    let folder = tempfile::tempdir().unwrap();
    let (app, elsewhere) = (folder.path().join("app"), folder.path().join("rows.js"));
    fs::create_dir_all(app.join("pb_hooks/gateway")).unwrap();
    fs::write(&elsewhere, "// linked\n").unwrap();
    std::os::unix::fs::symlink(&elsewhere, app.join(HOOK)).unwrap();
    std::os::unix::fs::symlink("/nowhere/turns.js", app.join("pb_hooks/gateway/turns.js")).unwrap();
    init(&app, None, true).unwrap();
    assert!(fs::symlink_metadata(app.join(HOOK)).unwrap().is_symlink());
    assert_ne!(fs::read_to_string(&elsewhere).unwrap(), "// linked\n");
    assert!(fs::read_to_string(app.join("pb_hooks/gateway/turns.js")).is_ok());
}

#[test]
fn parallel_runs_write_one_record() {
    let folder = tempfile::tempdir().unwrap();
    std::thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| init(folder.path(), Some(App::Chat), false).unwrap());
        }
    });
    assert_eq!(init(folder.path(), None, false).unwrap().text.lines().count(), 1, "all unchanged");
}

#[test]
fn a_data_directory_is_refused() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("data.db"), "").unwrap();
    let error = init(folder.path(), None, false).unwrap_err();
    assert!(error.to_string().contains("the directory that contains it"), "{error}");
}
