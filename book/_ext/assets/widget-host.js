/* Runs the ES module of each widget on a page that has no kernel.

   A script of the page hands in the source of a module with `define`; the module is imported from a Blob, which works
   for a page on a disk too. A widget starts when it is about to scroll into view. Until then, and if it fails, and on
   paper, the still picture stands in its place. */
(() => {
  /* What widgets are made with: Chrome and Edge have it since version 111, Firefox since 121, Safari since 16.4. */
  const known = ["selector(:has(a))", "color: color-mix(in srgb, red, blue)", "container-type: inline-size"].every((what) => CSS.supports(what));
  const sources = new Map();
  const modules = new Map();

  /* What anywidget hands to a module, without a kernel behind it. */
  class Model {
    constructor(state) {
      this.state = state;
      this.listeners = new Map();
    }
    get(name) {
      return this.state[name];
    }
    set(name, value) {
      if (Object.is(this.state[name], value)) return;
      this.state[name] = value;
      for (const callback of [...(this.listeners.get(`change:${name}`) ?? [])]) callback();
    }
    save_changes() {}
    on(event, callback) {
      if (!this.listeners.has(event)) this.listeners.set(event, new Set());
      this.listeners.get(event).add(callback);
    }
    off(event, callback) {
      this.listeners.get(event)?.delete(callback);
    }
  }

  /* Bytes stand in the page as {"base64": ...}; a module gets them as a DataView, as in Jupyter. */
  function withBytes(key, value) {
    if (typeof value?.base64 !== "string") return value;
    const bytes = Uint8Array.from(atob(value.base64), (character) => character.charCodeAt(0));
    return new DataView(bytes.buffer);
  }

  async function load(name) {
    if (!sources.has(name)) throw new Error(`the page has no script for the widget ${name}`);
    const address = URL.createObjectURL(new Blob([sources.get(name)], { type: "text/javascript" }));
    return (await import(address)).default;
  }

  async function start(mount) {
    const still = mount.querySelector(".nd-still");
    const stage = document.createElement("div");
    try {
      if (!known) throw new Error("it needs a newer browser");
      const name = mount.dataset.widget;
      if (!modules.has(name)) modules.set(name, load(name));
      const widget = await modules.get(name);
      const model = new Model(JSON.parse(mount.querySelector("script").textContent, withBytes));
      still.replaceWith(stage); /* first, so that the widget can measure its place */
      await widget.render({ model, el: stage });
      share(mount, model, stage.querySelector(".nd-widget")?.settings ?? new Map());
      mount.model = model; /* for tests and for the curious */
      mount.dataset.ready = "";
      onPaper(mount, still);
    } catch (error) {
      mount.dataset.failed = "";
      stage.replaceWith(still);
      const message = document.createElement("p");
      message.className = "nd-problem";
      message.textContent = `This picture could not be made interactive (${error.message}). You see a still one.`;
      mount.append(message);
      console.error(error);
    }
  }

  /* What a reader has set stands in the address, #descent?rate=1, so that a link shares it: of each trait that differs
     from the beginning its value as text, which the widget turns back into a value, or refuses. */
  function share(mount, model, settings) {
    const first = new Map([...settings.keys()].map((trait) => [trait, model.get(trait)]));
    const text = (value) => (Array.isArray(value) ? value.join(",") : String(value));
    const take = () => {
      const [name, query] = location.hash.slice(1).split("?");
      if (name !== mount.dataset.name || query === undefined) return;
      const stated = new URLSearchParams(query);
      for (const [trait, valueOf] of settings) {
        const value = stated.has(trait) ? valueOf(stated.get(trait)) : first.get(trait);
        if (value !== undefined && text(value) !== text(model.get(trait))) model.set(trait, value);
      }
    };
    let waiting;
    const give = () => {
      const changed = [...settings.keys()].filter((trait) => text(model.get(trait)) !== text(first.get(trait)));
      const query = new URLSearchParams(changed.map((trait) => [trait, text(model.get(trait))]));
      const ours = location.hash.startsWith(`#${mount.dataset.name}?`);
      const hash = changed.length ? `#${mount.dataset.name}?${query}` : ours ? "" : location.hash;
      if (hash !== location.hash) history.replaceState(history.state, "", location.href.split("#")[0] + hash);
    };
    take();
    addEventListener("hashchange", take);
    for (const trait of settings.keys()) {
      model.on(`change:${trait}`, () => {
        clearTimeout(waiting); /* a browser counts how often an address changes */
        waiting = setTimeout(give, 300);
      });
    }
  }

  /* The style of the page hides the widget itself when it is printed. */
  function onPaper(mount, still) {
    addEventListener("beforeprint", () => mount.prepend(still));
    addEventListener("afterprint", () => still.remove());
  }

  window.ndWidgets = { define: (name, source) => sources.set(name, source) };

  document.addEventListener("DOMContentLoaded", () => {
    const observer = new IntersectionObserver(
      (entries) => {
        for (const { isIntersecting, target } of entries) {
          if (!isIntersecting) continue;
          observer.unobserve(target);
          start(target);
        }
      },
      { rootMargin: "400px" },
    );
    const count = {};
    for (const mount of document.querySelectorAll(".nd-mount")) {
      const { widget } = mount.dataset;
      count[widget] = (count[widget] ?? 0) + 1;
      mount.dataset.name = widget + (count[widget] > 1 ? `-${count[widget]}` : ""); /* in addresses */
      observer.observe(mount);
      if (location.hash.slice(1).split("?")[0] === mount.dataset.name) mount.scrollIntoView();
    }
  });
})();
