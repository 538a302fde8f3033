// Mantine's theme: the accent colour, the font and the defaults of the components.

import { createTheme, type MantineColorsTuple } from "@mantine/core";

const accent: MantineColorsTuple = [
  "#edf3ff",
  "#d9e4fd",
  "#b0c7f8",
  "#84a8f4",
  "#5f8df0",
  "#477cee",
  "#2f68d8",
  "#2459bf",
  "#1b4fad",
  "#0b3f93",
];

const dark: MantineColorsTuple = [
  "#d5d9e0",
  "#b4bac5",
  "#98a0ad",
  "#69717f",
  "#3b424e",
  "#2f3540",
  "#242932",
  "#1a1e25",
  "#14171d",
  "#0e1014",
];

export const theme = createTheme({
  primaryColor: "accent",
  primaryShade: { light: 6, dark: 6 },
  colors: { accent, dark },
  defaultRadius: "md",
  fontFamily: "var(--k-font)",
  fontSizes: { xs: "0.75rem", sm: "0.8438rem", md: "0.9375rem", lg: "1.0625rem", xl: "1.25rem" },
  cursorType: "pointer",
  components: {
    Menu: { defaultProps: { shadow: "md", radius: "md", position: "bottom-end", withInitialFocusPlaceholder: false } },
    Tooltip: { defaultProps: { openDelay: 400, withArrow: false, fz: "xs" } },
    Modal: { defaultProps: { radius: "lg", centered: true, overlayProps: { backgroundOpacity: 0.45 } } },
    ActionIcon: { defaultProps: { variant: "subtle", color: "gray", size: "lg" } },
  },
});
