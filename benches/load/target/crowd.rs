//! Thousands of users of a real PocketBase.

use super::Audience;
use crate::harness::pocketbase::{PocketBase, User};
use crate::harness::tokens;
use jsonwebtoken::Algorithm;
use std::process::Command;

/// Users with their tokens, and their private rooms.
pub struct Crowd {
    pub users: Vec<User>,
    pub rooms: Vec<String>,
}

impl Crowd {
    /// Writes users and rooms into PocketBase's tables, as copies of records made by PocketBase. The API would take an
    /// hour.
    pub async fn seed(pocketbase: &PocketBase, audience: Audience) -> Self {
        const SCRIPT: &str = r#"
import json, secrets, sqlite3, string, sys
path, user, room, membership, users, rooms = sys.argv[1:]
users, rooms = int(users), int(rooms)
db = sqlite3.connect(path, timeout=30)
db.row_factory = sqlite3.Row
new_id = lambda: ''.join(secrets.choice(string.ascii_lowercase) for _ in range(15))
def like(table, id):
    return dict(db.execute('SELECT * FROM %s WHERE id = ?' % table, [id]).fetchone())
def insert(table, row):
    fields, places = ','.join('`%s`' % name for name in row), ','.join('?' * len(row))
    db.execute('INSERT INTO %s (%s) VALUES (%s)' % (table, fields, places), list(row.values()))
user, room, membership = like('users', user), like('rooms', room), like('room_members', membership)
collection, options = db.execute("SELECT id, options FROM _collections WHERE name = 'users'").fetchone()
print(collection, json.loads(options)['authToken']['secret'])
made = []
for _ in range(rooms):
    made.append(new_id())
    insert('rooms', {**room, 'id': made[-1]})
    print(made[-1])
for i in range(users):
    id = new_id()
    key = secrets.token_hex(25)
    insert('users', {**user, 'id': id, 'tokenKey': key, 'email': id + '@example.com', 'username': id, 'username_key': id})
    insert('room_members', {**membership, 'id': new_id(), 'user': id, 'room': made[i // (users // rooms)]})
    print(id, key)
db.commit()"#;
        let owner = pocketbase.user("owner").await;
        let member = pocketbase.user("member").await;
        let room = pocketbase.room(&owner).await;
        let membership = pocketbase.join(&room, &member).await;
        let membership = membership["id"].as_str().expect("an id").to_owned();
        let (clients, rooms) = (audience.clients.to_string(), audience.rooms.to_string());
        let mut command = Command::new("python3");
        command.args(["-c", SCRIPT]).arg(pocketbase.database());
        let output = command.args([&member.id, &room, &membership, &clients, &rooms]).output().expect("python3 runs");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let output = String::from_utf8_lossy(&output.stdout);
        let mut lines = output.lines();
        let (collection, secret) = lines.next().and_then(|line| line.split_once(' ')).expect("what signs tokens");
        let rooms = lines.by_ref().take(audience.rooms as usize).map(str::to_owned).collect();
        let user = |line: &str| {
            let (id, key) = line.split_once(' ').expect("a user with a key");
            let token = tokens::sign(Algorithm::HS256, &tokens::claims(id, collection), &format!("{key}{secret}"));
            User { id: id.to_owned(), token }
        };
        Self { users: lines.map(user).collect(), rooms }
    }
}
