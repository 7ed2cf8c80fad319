// Every file of the folder dashboard, by its path. A test says which one is missing here.
#include "CAssets.h"

#pragma clang diagnostic ignored "-Wc23-extensions"

static const unsigned char index_html[] = {
#embed "dashboard/index.html"
};
static const unsigned char actions_backups_js[] = {
#embed "dashboard/actions/backups.js"
};
static const unsigned char actions_copies_js[] = {
#embed "dashboard/actions/copies.js"
};
static const unsigned char actions_devices_js[] = {
#embed "dashboard/actions/devices.js"
};
static const unsigned char actions_jobs_js[] = {
#embed "dashboard/actions/jobs.js"
};
static const unsigned char components_blockmap_js[] = {
#embed "dashboard/components/blockmap.js"
};
static const unsigned char components_chain_js[] = {
#embed "dashboard/components/chain.js"
};
static const unsigned char components_curl_js[] = {
#embed "dashboard/components/curl.js"
};
static const unsigned char components_dialog_js[] = {
#embed "dashboard/components/dialog.js"
};
static const unsigned char components_form_js[] = {
#embed "dashboard/components/form.js"
};
static const unsigned char components_icons_js[] = {
#embed "dashboard/components/icons.js"
};
static const unsigned char components_jobrow_js[] = {
#embed "dashboard/components/jobrow.js"
};
static const unsigned char components_panel_js[] = {
#embed "dashboard/components/panel.js"
};
static const unsigned char components_parts_js[] = {
#embed "dashboard/components/parts.js"
};
static const unsigned char components_plan_js[] = {
#embed "dashboard/components/plan.js"
};
static const unsigned char components_spark_js[] = {
#embed "dashboard/components/spark.js"
};
static const unsigned char components_table_js[] = {
#embed "dashboard/components/table.js"
};
static const unsigned char components_tree_js[] = {
#embed "dashboard/components/tree.js"
};
static const unsigned char components_troubles_js[] = {
#embed "dashboard/components/troubles.js"
};
static const unsigned char core_api_js[] = {
#embed "dashboard/core/api.js"
};
static const unsigned char core_dom_js[] = {
#embed "dashboard/core/dom.js"
};
static const unsigned char core_events_js[] = {
#embed "dashboard/core/events.js"
};
static const unsigned char core_format_js[] = {
#embed "dashboard/core/format.js"
};
static const unsigned char core_main_js[] = {
#embed "dashboard/core/main.js"
};
static const unsigned char core_metrics_js[] = {
#embed "dashboard/core/metrics.js"
};
static const unsigned char core_router_js[] = {
#embed "dashboard/core/router.js"
};
static const unsigned char core_session_js[] = {
#embed "dashboard/core/session.js"
};
static const unsigned char core_store_js[] = {
#embed "dashboard/core/store.js"
};
static const unsigned char style_base_css[] = {
#embed "dashboard/style/base.css"
};
static const unsigned char style_figures_css[] = {
#embed "dashboard/style/figures.css"
};
static const unsigned char style_icon_svg[] = {
#embed "dashboard/style/icon.svg"
};
static const unsigned char style_parts_css[] = {
#embed "dashboard/style/parts.css"
};
static const unsigned char style_tokens_css[] = {
#embed "dashboard/style/tokens.css"
};
static const unsigned char views_backups_js[] = {
#embed "dashboard/views/backups.js"
};
static const unsigned char views_device_js[] = {
#embed "dashboard/views/device.js"
};
static const unsigned char views_devicefigures_js[] = {
#embed "dashboard/views/devicefigures.js"
};
static const unsigned char views_deviceparts_js[] = {
#embed "dashboard/views/deviceparts.js"
};
static const unsigned char views_devices_js[] = {
#embed "dashboard/views/devices.js"
};
static const unsigned char views_events_js[] = {
#embed "dashboard/views/events.js"
};
static const unsigned char views_frame_js[] = {
#embed "dashboard/views/frame.js"
};
static const unsigned char views_images_js[] = {
#embed "dashboard/views/images.js"
};
static const unsigned char views_job_js[] = {
#embed "dashboard/views/job.js"
};
static const unsigned char views_jobs_js[] = {
#embed "dashboard/views/jobs.js"
};
static const unsigned char views_overview_js[] = {
#embed "dashboard/views/overview.js"
};
static const unsigned char views_signin_js[] = {
#embed "dashboard/views/signin.js"
};

static const DashboardFile files[] = {
    {"index.html", {index_html, sizeof index_html}},
    {"actions/backups.js", {actions_backups_js, sizeof actions_backups_js}},
    {"actions/copies.js", {actions_copies_js, sizeof actions_copies_js}},
    {"actions/devices.js", {actions_devices_js, sizeof actions_devices_js}},
    {"actions/jobs.js", {actions_jobs_js, sizeof actions_jobs_js}},
    {"components/blockmap.js", {components_blockmap_js, sizeof components_blockmap_js}},
    {"components/chain.js", {components_chain_js, sizeof components_chain_js}},
    {"components/curl.js", {components_curl_js, sizeof components_curl_js}},
    {"components/dialog.js", {components_dialog_js, sizeof components_dialog_js}},
    {"components/form.js", {components_form_js, sizeof components_form_js}},
    {"components/icons.js", {components_icons_js, sizeof components_icons_js}},
    {"components/jobrow.js", {components_jobrow_js, sizeof components_jobrow_js}},
    {"components/panel.js", {components_panel_js, sizeof components_panel_js}},
    {"components/parts.js", {components_parts_js, sizeof components_parts_js}},
    {"components/plan.js", {components_plan_js, sizeof components_plan_js}},
    {"components/spark.js", {components_spark_js, sizeof components_spark_js}},
    {"components/table.js", {components_table_js, sizeof components_table_js}},
    {"components/tree.js", {components_tree_js, sizeof components_tree_js}},
    {"components/troubles.js", {components_troubles_js, sizeof components_troubles_js}},
    {"core/api.js", {core_api_js, sizeof core_api_js}},
    {"core/dom.js", {core_dom_js, sizeof core_dom_js}},
    {"core/events.js", {core_events_js, sizeof core_events_js}},
    {"core/format.js", {core_format_js, sizeof core_format_js}},
    {"core/main.js", {core_main_js, sizeof core_main_js}},
    {"core/metrics.js", {core_metrics_js, sizeof core_metrics_js}},
    {"core/router.js", {core_router_js, sizeof core_router_js}},
    {"core/session.js", {core_session_js, sizeof core_session_js}},
    {"core/store.js", {core_store_js, sizeof core_store_js}},
    {"style/base.css", {style_base_css, sizeof style_base_css}},
    {"style/figures.css", {style_figures_css, sizeof style_figures_css}},
    {"style/icon.svg", {style_icon_svg, sizeof style_icon_svg}},
    {"style/parts.css", {style_parts_css, sizeof style_parts_css}},
    {"style/tokens.css", {style_tokens_css, sizeof style_tokens_css}},
    {"views/backups.js", {views_backups_js, sizeof views_backups_js}},
    {"views/device.js", {views_device_js, sizeof views_device_js}},
    {"views/devicefigures.js", {views_devicefigures_js, sizeof views_devicefigures_js}},
    {"views/deviceparts.js", {views_deviceparts_js, sizeof views_deviceparts_js}},
    {"views/devices.js", {views_devices_js, sizeof views_devices_js}},
    {"views/events.js", {views_events_js, sizeof views_events_js}},
    {"views/frame.js", {views_frame_js, sizeof views_frame_js}},
    {"views/images.js", {views_images_js, sizeof views_images_js}},
    {"views/job.js", {views_job_js, sizeof views_job_js}},
    {"views/jobs.js", {views_jobs_js, sizeof views_jobs_js}},
    {"views/overview.js", {views_overview_js, sizeof views_overview_js}},
    {"views/signin.js", {views_signin_js, sizeof views_signin_js}},
};

size_t dashboard_count(void) { return sizeof files / sizeof *files; }

DashboardFile dashboard_file(size_t index) { return files[index]; }
