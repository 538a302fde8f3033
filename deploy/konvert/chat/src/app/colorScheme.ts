// Light or dark, for the login, which is drawn without the component library: the user's choice in the settings, else
// the system's. Mantine keeps the choice in localStorage and reads the same attribute.

const CHOICE = "mantine-color-scheme-value";

export function followColorScheme(): void {
  const system = matchMedia("(prefers-color-scheme: dark)");
  const show = () => {
    const choice = localStorage.getItem(CHOICE);
    const isDark = choice === "dark" || (choice !== "light" && system.matches);
    document.documentElement.dataset.mantineColorScheme = isDark ? "dark" : "light";
  };
  show();
  system.addEventListener("change", show);
}
