// Puts the cursor into the composer of the open chat.

export function focusComposer(): void {
  // After the menu has closed, which returns the focus to its button.
  setTimeout(() => document.querySelector<HTMLTextAreaElement>("[data-composer]")?.focus(), 60);
}
