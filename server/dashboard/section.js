// A section of the page: HTML that the server made, fetched from where it says. New HTML changes what differs and leaves
// the rest as it is. A button with data-action tells the server that it was pressed, with all its data.
export default {
  template: `<div @click="pressed"></div>`,
  props: { src: String },
  created() {
    this.shown = null; // where what it holds came from
    this.filling = false;
  },
  mounted() {
    this.fill();
  },
  watch: { src: "fill" },
  methods: {
    // One at a time, and what comes is shown though there may be something newer: where a study changes faster than its
    // sections come, the page follows as fast as it can.
    async fill() {
      if (this.filling) return;
      this.filling = true;
      while (this.shown !== this.src && this.$el?.isConnected) {
        const src = this.src;
        const html = await page.fetched(src);
        if (html !== null) {
          morph(this.$el, html);
          page.drawn(this.$el);
          this.shown = src;
        } else if (this.src === src) await new Promise((again) => setTimeout(again, 1000));
      }
      this.filling = false;
    },
    pressed(event) {
      const button = event.target.closest("button[data-action]");
      if (button) this.$emit("action", { ...button.dataset });
    },
  },
};
