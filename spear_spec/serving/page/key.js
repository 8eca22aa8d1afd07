// The key that a server may ask for: kept in this tab's session, sent to this server alone.

import { find } from "./dom.js";

const NAME = "spear-spec-key";

export const key = {
  get value() {
    return sessionStorage.getItem(NAME) ?? "";
  },
  set value(text) {
    if (text) sessionStorage.setItem(NAME, text);
    else sessionStorage.removeItem(NAME);
    find("forget-key").hidden = !text;
  },
};

/** Ask for a key; whether one was given. */
export function askForKey() {
  const dialog = find("ask-key");
  const field = find("key");
  field.value = "";
  dialog.returnValue = "";
  dialog.showModal();
  field.focus();
  return new Promise((resolve) => {
    const cancel = () => dialog.close("");
    find("key-cancel").addEventListener("click", cancel, { once: true });
    dialog.addEventListener(
      "close",
      () => {
        find("key-cancel").removeEventListener("click", cancel);
        const given = dialog.returnValue === "given" && field.value.trim();
        if (given) key.value = field.value.trim();
        field.value = "";
        resolve(Boolean(given));
      },
      { once: true },
    );
    find("key-form").onsubmit = (event) => {
      event.preventDefault();
      dialog.close("given");
    };
  });
}
