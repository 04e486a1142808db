/* Runs the ES module of each widget on a page that has no kernel.

   A script of the page hands in the source of a module with `define`; the module is imported from a Blob, which works
   for a page on a disk too. A widget starts when it is about to scroll into view. Until then, and if it fails, and on
   paper, the still picture stands in its place. */
(() => {
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
      const name = mount.dataset.widget;
      if (!modules.has(name)) modules.set(name, load(name));
      const widget = await modules.get(name);
      const model = new Model(JSON.parse(mount.querySelector("script").textContent, withBytes));
      still.replaceWith(stage); /* first, so that the widget can measure its place */
      await widget.render({ model, el: stage });
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
    document.querySelectorAll(".nd-mount").forEach((mount) => observer.observe(mount));
  });
})();
