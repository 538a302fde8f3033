// A grid of emoji in a popover. Arrow keys move in the grid, Enter chooses.

import { Popover } from "@mantine/core";
import { useRef, useState, type KeyboardEvent, type ReactElement } from "react";
import { EMOJI } from "./emoji";
import styles from "./EmojiPicker.module.css";

interface Props {
  label: string;
  onPick: (emoji: string) => void;
  onOpenChange?: (open: boolean) => void;
  /** The button that opens the picker. */
  target: (toggle: () => void, open: boolean) => ReactElement;
}

const COLUMNS = 8;

export function EmojiPicker({ label, onPick, onOpenChange, target }: Props) {
  const [open, setOpen] = useState(false);
  const grid = useRef<HTMLDivElement>(null);
  const change = (value: boolean) => {
    setOpen(value);
    onOpenChange?.(value);
  };

  function onKeyDown(event: KeyboardEvent) {
    const buttons = [...(grid.current?.querySelectorAll("button") ?? [])];
    const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: COLUMNS, ArrowUp: -COLUMNS }[event.key];
    if (!step) return;
    event.preventDefault();
    event.stopPropagation();
    buttons[buttons.indexOf(document.activeElement as HTMLButtonElement) + step]?.focus();
  }

  return (
    <Popover opened={open} onChange={change} position="top" trapFocus returnFocus shadow="md" radius="md" withinPortal>
      <Popover.Target>{target(() => change(!open), open)}</Popover.Target>
      <Popover.Dropdown p={6} aria-label={label}>
        <div ref={grid} className={styles.grid} onKeyDown={onKeyDown} role="group" aria-label={label}>
          {EMOJI.map((emoji, index) => (
            <button
              key={emoji}
              type="button"
              className={styles.emoji}
              tabIndex={index === 0 ? 0 : -1}
              onClick={() => {
                onPick(emoji);
                change(false);
              }}
            >
              {emoji}
            </button>
          ))}
        </div>
      </Popover.Dropdown>
    </Popover>
  );
}
