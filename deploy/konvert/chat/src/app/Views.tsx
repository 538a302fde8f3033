// The chat behind the login, with the component library, notices and questions.

import "./styles";
import { MantineProvider } from "@mantine/core";
import { Confirm } from "@/widgets/confirm";
import { Notices } from "@/widgets/notices";
import { Chat } from "./Chat";
import { theme } from "./theme";

export default function Views() {
  return (
    <MantineProvider theme={theme} defaultColorScheme="auto">
      <Chat />
      <Notices />
      <Confirm />
    </MantineProvider>
  );
}
