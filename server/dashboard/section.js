// A section of the page: HTML that the server made. New HTML changes what differs and leaves the rest as it is.
// A button with data-action tells the server that it was pressed, with all its data.
export default {
  template: `<div @click="pressed"></div>`,
  props: { html: String },
  mounted() {
    this.$el.innerHTML = this.html;
    page.drawn(this.$el);
  },
  watch: {
    html(now) {
      morph(this.$el, now);
      page.drawn(this.$el);
    },
  },
  methods: {
    pressed(event) {
      const button = event.target.closest("button[data-action]");
      if (button) this.$emit("action", { ...button.dataset });
    },
  },
};
