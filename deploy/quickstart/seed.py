"""The demo's content: two users and one room. On later runs, existing records are kept."""

ROOM = "Demo"
USERS = [  # Alice owns the room.
    {"name": "Alice", "email": "alice@example.com", "password": "alice-demo"},
    {"name": "Bob", "email": "bob@example.com", "password": "bob-demo"},
]


def seed(pocketbase):
    """Makes sure that users, room and memberships exist; returns (users, room id)."""
    users = [{**user, "id": ensure_user(pocketbase, **user)} for user in USERS]
    owner = users[0]["id"]
    room = pocketbase.find("rooms", name=ROOM, owner=owner) or pocketbase.create(
        "rooms", name=ROOM, owner=owner, type="private"
    )
    for user in users:
        # The owner became a member when the room was created.
        if not pocketbase.find("room_members", room=room["id"], user=user["id"]):
            role = "owner" if user["id"] == owner else "member"
            pocketbase.create("room_members", room=room["id"], user=user["id"], role=role)
    return users, room["id"]


def ensure_user(pocketbase, name, email, password):
    found = pocketbase.find("users", email=email)
    if found:
        return found["id"]
    user = pocketbase.create(
        "users", name=name, email=email, password=password, passwordConfirm=password, role="user", verified=True
    )
    return user["id"]
