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
    /// Puts them into PocketBase's tables, as copies of ones that PocketBase has made: through its API they would take
    /// an hour.
    pub async fn seed(pocketbase: &PocketBase, audience: Audience) -> Self {
        const SCRIPT: &str = r"
import secrets, sqlite3, string, sys
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
made = []
for _ in range(rooms):
    made.append(new_id())
    insert('rooms', {**room, 'id': made[-1]})
    print(made[-1])
for i in range(users):
    id = new_id()
    insert('users', {**user, 'id': id, 'tokenKey': secrets.token_hex(25), 'email': id + '@example.com'})
    insert('room_members', {**membership, 'id': new_id(), 'user': id, 'room': made[i // (users // rooms)]})
    print(id)
db.commit()";
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
        let mut ids: Vec<String> = String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect();
        let users = ids.split_off(audience.rooms as usize);
        let (keys, collection) = tokens::signing_keys(pocketbase, &users).await;
        let token = |(id, key): (String, String)| {
            let token = tokens::sign(Algorithm::HS256, &tokens::claims(&id, &collection), &key);
            User { id, token }
        };
        Self { users: users.into_iter().zip(keys).map(token).collect(), rooms: ids }
    }
}
