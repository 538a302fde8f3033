// "Bob is typing…", for the header and the list.

import { useTranslation } from "react-i18next";
import { nameOf, usePeople } from "@/model/people";

export function TypingText({ users }: { users: readonly string[] }) {
  const { t } = useTranslation();
  const people = usePeople((state) => state.people);
  const names = users.map((id) => nameOf(people[id])).filter(Boolean);
  if (!names.length || names.length > 3) return <>{t("chat.typingMany")}</>;
  return <>{t("chat.typing", { count: names.length, names: names.join(", ") })}</>;
}
