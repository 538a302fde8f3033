// The switch of the language, usable before login too.

import { Button, Menu } from "@mantine/core";
import { IconLanguage } from "@tabler/icons-react";
import { useTranslation } from "react-i18next";
import { changeLanguage, currentLanguage, LANGUAGES } from "@/i18n";

export function LanguageMenu() {
  useTranslation(); // draws again after a change of the language
  const current = LANGUAGES.find(({ value }) => value === currentLanguage());
  return (
    <Menu>
      <Menu.Target>
        <Button
          variant="subtle"
          color="gray"
          leftSection={<IconLanguage size={18} />}
          aria-label={`Language / Язык: ${current?.label ?? ""}`}
        >
          {current?.label}
        </Button>
      </Menu.Target>
      <Menu.Dropdown>
        {LANGUAGES.map(({ value, label }) => (
          <Menu.Item key={value} lang={value} onClick={() => void changeLanguage(value)}>
            {label}
          </Menu.Item>
        ))}
      </Menu.Dropdown>
    </Menu>
  );
}
