// A run of either view: a request whose events come while it lasts.

import { find, tell, write } from "./dom.js";
import { events } from "./events.js";

/**
 * Post `body` and give each event to `view.take`, until the end or until `view.running` is aborted. What goes wrong is
 * told; where the view found a key for it, it goes again. status: the element that says how it goes; done(), failed():
 * called at the end, before it is told.
 */
export async function run(view, path, body, status, { done = () => {}, failed = () => {} } = {}) {
  const mine = view.running;
  try {
    for await (const [name, data] of events(path, body, mine.signal)) {
      if (mine.signal.aborted) return;
      view.take(name, data);
    }
    done();
  } catch (error) {
    if (mine.signal.aborted) return;
    failed();
    write(find(status), "");
    view.running = null;
    view.buttons();
    if (await view.refused(error)) return void view.go();
    tell(error.message);
  } finally {
    if (view.running === mine) {
      view.running = null;
      view.buttons();
    }
  }
}
