// Elements by hand. What comes from outside becomes a text node, never markup.

/** The element of this id. */
export const find = (id) => document.getElementById(id);

/** A new element: `make("p", { class: "hint" }, "text", child)`. */
export function make(name, attributes = {}, ...children) {
  const element = document.createElement(name);
  for (const [key, value] of Object.entries(attributes)) element.setAttribute(key, value);
  element.append(...children);
  return element;
}

/** Write a text, if it is another one. */
export function write(element, text) {
  if (element.textContent !== text) element.textContent = text;
}

/** The value of a colour of the style sheet as [r, g, b], 0 to 255. */
export function colour(name) {
  const text = getComputedStyle(document.documentElement).getPropertyValue(name).trim();
  return [1, 3, 5].map((at) => parseInt(text.slice(at, at + 2), 16));
}

/** Show what went wrong, or with an empty text take it away. */
export function tell(text) {
  const place = find("error");
  place.hidden = !text;
  write(place, text);
}
