// What the page does when it opens: which view, what the voice is, whether a key is asked for.

import { find, tell, write } from "./dom.js";
import { get } from "./events.js";
import { askForKey, key } from "./key.js";
import { Race } from "./race.js";
import { Speak } from "./speak.js";

const VIEWS = ["speak", "race"];

/** Whether what was refused may be tried again: it was for want of a key, and one was given. */
async function refused(error) {
  if (error.status !== 401) return false;
  key.value = "";
  return askForKey();
}

const speak = new Speak(refused);
const race = new Race(refused);

async function meet() {
  try {
    const voice = await get("playground/voice");
    speak.ready(voice);
    race.ready(voice);
    write(find("about"), `Voice ${voice.name} (${voice.licence}). A synthetic voice: say so when you publish speech made with it.`);
    tell("");
  } catch (error) {
    if (await refused(error)) return void meet();
    tell(error.message);
  }
}

function show(focus) {
  const view = VIEWS.find((name) => location.hash === `#${name}`) ?? VIEWS[0];
  for (const name of VIEWS) {
    find(name).hidden = name !== view;
    const link = find(`to-${name}`);
    if (name === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.title = `spear_spec: ${view}`;
  if (focus) find("main").focus({ preventScroll: true });
  scrollTo(0, 0);
}

addEventListener("hashchange", () => location.hash !== "#main" && show(true));
addEventListener("keydown", (event) => {
  if (event.key !== "Escape" || find("ask-key").open) return;
  speak.stop();
  race.stop();
});
find("forget-key").addEventListener("click", () => {
  key.value = "";
  meet();
});
find("forget-key").hidden = !key.value;
show(false);
meet();
